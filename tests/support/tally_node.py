"""A process that leads the role ``tally``: ``python -m tests.support.tally_node URL HOST``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from galaxy.driver.shell import LeaderShell
from galaxy.errors import NotFound
from galaxy.model.api.answers import Answer
from galaxy.model.api.request import Request
from galaxy.model.messages.names import APPMASTER
from galaxy.nexus import Nexus
from galaxy.tasks.gate import Gate
from galaxy.tasks.handlers import add_leader_handlers, add_request_handlers
from galaxy.tasks.node import NodeOptions, run_leader
from tests.support.tally import Add, Tally

ADD = "tally.add"


class Node:
    """A node's process and its log."""

    def __init__(self, url: str, host: str, log_path: str, module: str) -> None:
        self.host = host
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", module, url, host], stderr=log, stdout=log)

    def await_log(self, text: str, timeout_s: float = 60.0) -> None:
        """Return when ``text`` is in the log."""
        end_s = time.monotonic() + timeout_s
        while text not in self.log():
            assert time.monotonic() < end_s, f"no {text!r} in {timeout_s} s:\n{self.log()}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            threading.Event().wait(0.01)

    def log(self) -> str:
        with open(self.log_path) as log:
            return log.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)


@contextmanager
def running_node(url: str, host: str, module: str = "tests.support.tally_node") -> Iterator[Node]:
    """Run a node for the length of a ``with``."""
    descriptor, path = tempfile.mkstemp(prefix=f"galaxy-{host}-", suffix=".log")
    os.close(descriptor)
    node = Node(url, host, path, module)
    try:
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            node.signal(signal.SIGKILL)
        node.wait()
        os.unlink(path)


class Directory:
    """Answers read-only requests, as AppMaster's shell does."""

    def answer(self, request: Request) -> Answer | None:
        if request.op == "galaxy.agent.list":
            return Answer(key=request.key, result="at once")
        if request.op == "galaxy.cluster.status":
            raise NotFound("no cluster", hint="galaxy up")
        return None


def add_handlers(app: Any, shell: LeaderShell, gate: Gate, _: Nexus) -> None:
    add_leader_handlers(app, shell, gate, {ADD: Add})
    add_request_handlers(app, shell, gate, Directory(), role=APPMASTER)


def main() -> int:
    url, host = sys.argv[1:3]
    return run_leader("tally", NodeOptions(url=url, host=host), Tally(), add_handlers)


if __name__ == "__main__":
    sys.exit(main())
