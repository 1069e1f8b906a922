"""A client that repeats requests that fail, for clusters whose parts stop and start."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError
from galaxy.model.api.jobs import Accepted
from galaxy.model.api.views import JobView, PodView

T = TypeVar("T")


class RetryingClient(ABC):
    """Repeats requests until they succeed; subclasses connect in ``sdk``."""

    @abstractmethod
    def sdk(self) -> AbstractContextManager[Galaxy]:
        """Connect to the cluster."""

    def ask(self, what: Callable[[Galaxy], T], timeout_s: float = 20.0) -> T:
        """Call ``what`` with a client, repeatedly for at most ``timeout_s`` while it raises a GalaxyError."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                with self.sdk() as galaxy:
                    return what(galaxy)
            except GalaxyError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.1)

    def change(self, verb: str, what: Any, timeout_s: float = 20.0) -> Accepted:
        """Call the client's method ``verb`` under one idempotency key, so that it takes effect once."""
        key = secrets.token_hex(8)
        return self.ask(lambda galaxy: getattr(galaxy, verb)(what, key=key), timeout_s)

    def job(self, name: str) -> JobView:
        """Return the view of a job."""
        return self.ask(lambda galaxy: galaxy.job(name))

    def pods(self, name: str) -> list[PodView]:
        """Return the views of a job's pods."""
        return list(self.job(name).pods)
