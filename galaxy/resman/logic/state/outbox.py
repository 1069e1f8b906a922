"""The output of the current step: filled while the step runs, empty between steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from galaxy.model.messages.trace import TraceEvent


@dataclass(kw_only=True)
class Outbox:
    """Collects the output of one step, so that everything for one receiver shares a message."""

    report_requests: dict[str, None] = field(default_factory=dict)
    """Agents that are asked for a full report."""
    due: list[str] = field(default_factory=list)
    """Keys of containers whose commands came due."""
    changed_slots: dict[str, dict[str, None]] = field(default_factory=dict)
    """By group, the slots whose status changed."""
    status_requests: dict[str, int] = field(default_factory=dict)
    """By group whose status AppMaster asked for, the version that AppMaster has; 0 means none."""
    acknowledge_identity: bool = False
    forget: list[str] = field(default_factory=list)
    """Agents without a record, whose heartbeats, mailboxes and queues are deleted."""
    trace: list[TraceEvent] = field(default_factory=list)
