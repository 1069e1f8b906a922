"""A client of a cluster whose parts come and go: it asks again while nobody answers."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from galaxy.client import Galaxy
from galaxy.errors import GalaxyError
from galaxy.model.api.jobs import Done
from galaxy.model.api.views import JobView, PodView

T = TypeVar("T")


class Asking(ABC):
    """What tests ask of a cluster and of its jobs, by way of ``sdk``."""

    @abstractmethod
    def sdk(self) -> AbstractContextManager[Galaxy]:
        """Connect to the cluster."""

    def ask(self, what: Callable[[Galaxy], T], timeout_s: float = 20.0) -> T:
        """Ask, and again while nobody answers."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                with self.sdk() as galaxy:
                    return what(galaxy)
            except GalaxyError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.1)

    def change(self, verb: str, what: Any, timeout_s: float = 20.0) -> Done:
        """Ask for ``submit``, ``update``, ``remove``, ... under one key: asked twice it is done once."""
        key = secrets.token_hex(8)
        return self.ask(lambda galaxy: getattr(galaxy, verb)(what, key=key), timeout_s)

    def job(self, name: str) -> JobView:
        return self.ask(lambda galaxy: galaxy.job(name))

    def pods(self, name: str) -> list[PodView]:
        return list(self.job(name).pods)
