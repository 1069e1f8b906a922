"""What ``galaxy explain`` prints."""

from __future__ import annotations

from galaxy.cli.job.explain import explanation_lines
from galaxy.model.messages.container import Reason
from tests.unit.cli.views import pod

WHY = Reason(
    code="no-room",
    message="no agent has room",
    counts={"memory": 1, "tag": 7},
    nearest=("h3 lacks 800 MiB memory",),
    hosts={"memory": ("h3",), "tag": ("h1", "h2", "h4", "h5", "h6")},
    changes=("memory 3.2 GiB instead of 4 GiB (h3 has room then)", "tag ssd on one of h1, h2, h4, ..."),
)


def test_pods_that_wait_for_the_same_reason_share_one_explanation_with_hosts_and_changes() -> None:
    lines = explanation_lines(
        [
            pod(0),
            pod(1, state="pending", agent="", reason=WHY),
            pod(2, state="pending", agent="h9", reason=WHY),
        ]
    )
    assert lines == [
        "web-1.0: running on h1",
        "web-1.1 and 1 more: pending: no agent has room",
        "      7  tag            h1, h2, h4, h5, h6, ...",
        "      1  memory         h3",
        "         nearest: h3 lacks 800 MiB memory",
        "  would fit with: memory 3.2 GiB instead of 4 GiB (h3 has room then)",
        "              or: tag ssd on one of h1, h2, h4, ...",
    ]


def test_text_of_a_reason_cannot_add_lines() -> None:
    hostile = Reason(code="x", message="a\r\nb\x1b[2J", nearest=("h1\nx",), changes=("y\nz",))
    waiting = pod(0, state="pending", agent="", reason=hostile)
    assert all(line.isprintable() for line in explanation_lines([waiting]))


def test_running_pod_whose_new_size_has_no_room_is_explained_with_hosts_and_changes() -> None:
    lines = explanation_lines([pod(0, reason=WHY)])
    assert lines[0] == "web-1.0: running on h1: no agent has room"
    assert "      1  memory         h3" in lines
    assert "  would fit with: memory 3.2 GiB instead of 4 GiB (h3 has room then)" in lines
