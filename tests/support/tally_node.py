"""A process that leads the role ``tally``: ``python -m tests.support.tally_node URL HOST``."""

from __future__ import annotations

import sys
from typing import Any

from galaxy.driver.shell import LeaderShell
from galaxy.nexus import Nexus
from galaxy.tasks.gate import Gate
from galaxy.tasks.handlers import add_leader_handlers
from galaxy.tasks.node import NodeOptions, run_leader
from tests.support.tally import Add, Tally

ADD = "tally.add"


def add_handlers(app: Any, shell: LeaderShell, gate: Gate, _: Nexus) -> None:
    add_leader_handlers(app, shell, gate, {ADD: Add})


def main() -> int:
    url, host = sys.argv[1:3]
    return run_leader("tally", NodeOptions(url=url, host=host, log_level="debug"), Tally(), add_handlers)


if __name__ == "__main__":
    sys.exit(main())
