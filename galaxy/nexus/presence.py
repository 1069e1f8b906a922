"""Whether the client of a session is still there.

A client subscribes to a channel of its session: Redis ends the subscription with the connection, so a
client that was killed is noticed at once, and one that is slow, or waits for its pager, is not mistaken for
dead. It also renews a key, which expires when the network to the client is cut and no connection ends, and
when the client is stopped (SIGSTOP, Ctrl-Z) for ``LEASE_S``: from here these look alike.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Final

import redis

from galaxy.model.base import Struct
from galaxy.nexus import keys

RENEW_S: Final = 2.0
LEASE_S: Final = 10
RETRY_S: Final = 0.2
ABSENT_S: Final = 0.5
"""How long a subscription may be missing: a client subscribes again after a lost connection."""


class Peer(Struct, frozen=True, kw_only=True):
    """What Redis says about the client of a session."""

    closed: bool
    """The direction to the client was closed."""
    subscribed: bool
    leased: bool


class Presence:
    """A client's presence in a session, from now until ``close``."""

    def __init__(self, client: redis.Redis, session_id: str) -> None:
        self._client = client
        self._channel = keys.session_client(session_id)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="session-presence", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(redis.RedisError, OSError):
                self._subscribe()
            self._closed.wait(RETRY_S)

    def _subscribe(self) -> None:
        untyped: Any = self._client
        with untyped.pubsub() as subscription:
            subscription.subscribe(self._channel)
            while not self._closed.is_set():
                self._client.set(self._channel, "1", ex=LEASE_S)
                subscription.get_message(timeout=0)
                self._closed.wait(RENEW_S)
                subscription.check_health()


class ClientWatch:
    """Decides whether a client is gone, from successive observations of its ``Peer``."""

    def __init__(self) -> None:
        self._was_subscribed = False
        self._was_leased = False
        self._absent_since_s: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether the client has shown its presence; one that ended early never does."""
        return self._was_subscribed

    def is_gone(self, peer: Peer, now_s: float) -> bool:
        """Return whether the client closed the session, died, or was cut off for ``LEASE_S``."""
        self._was_subscribed |= peer.subscribed
        lease_ended = self._was_leased and not peer.leased
        self._was_leased |= peer.leased
        if peer.subscribed or not self._was_subscribed:
            self._absent_since_s = None
        elif self._absent_since_s is None:
            self._absent_since_s = now_s
        absent = self._absent_since_s is not None and now_s - self._absent_since_s >= ABSENT_S
        return peer.closed or lease_ended or absent
