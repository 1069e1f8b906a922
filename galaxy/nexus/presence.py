"""Whether the client of a session is still there.

A client subscribes to a channel of its session: Redis ends the subscription with the connection, so a
client that was killed is noticed at once, and one that is slow, or waits for its pager, is not mistaken for
dead. It also renews a key, which expires when the network to the client is cut and no connection ends. A
client that is suspended with SIGTSTP (Ctrl-Z) says so before it stops, and its key lives for
``SUSPENDED_S``; one that is stopped with SIGSTOP cannot, and from here looks like one that was cut off.

When Redis itself was away, subscriptions and keys may be gone though the client is there: it has
``LEASE_S`` to show its presence again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Final

import redis

from galaxy.model.base import Struct
from galaxy.nexus import keys

RENEW_S: Final = 2.0
LEASE_S: Final = 10
RETRY_S: Final = 0.2
_LEASE_TRIES: Final = 5
ABSENT_S: Final = 0.5
"""How long a subscription may be missing: a client subscribes again after a lost connection."""
ABSENCE_S: Final = 10.0
"""How long Redis may be away, from the first failure on, before a session ends."""
SUSPENDED_S: Final = 3600
"""How long a suspended client counts as there, if Redis does not say that its connection has ended."""


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
        self._lease_s = LEASE_S
        threading.Thread(target=self._run, name="session-presence", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def suspend(self) -> None:
        """Keep the presence while this process is stopped, for up to ``SUSPENDED_S``. Best effort."""
        self._set_lease(SUSPENDED_S)

    def resume(self) -> None:
        """End ``suspend``."""
        self._set_lease(LEASE_S)

    def _set_lease(self, lease_s: int) -> None:
        self._lease_s = lease_s
        for _ in range(_LEASE_TRIES):  # Connections of the pool may have ended without being used since.
            try:
                self._renew()
                return
            except (redis.RedisError, OSError):
                self._closed.wait(RETRY_S)

    def _renew(self) -> None:
        self._client.set(self._channel, "1", ex=self._lease_s)

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
                self._renew()
                # Returns early when the connection ends, and subscribes again then.
                renew_s = time.monotonic() + RENEW_S
                while not self._closed.is_set() and (left_s := renew_s - time.monotonic()) > 0:
                    subscription.get_message(timeout=left_s)
                subscription.check_health()


class ClientWatch:
    """Decides whether a client is gone, from successive observations of its ``Peer``."""

    def __init__(self) -> None:
        self._was_subscribed = False
        self._was_leased = False
        self._absent_since_s: float | None = None
        self._away_since_s: float | None = None
        self._returning_until_s: float | None = None
        """Until then a client need not have shown its presence again: Redis was away."""

    @property
    def is_known(self) -> bool:
        """Whether the client has shown its presence; one that ended early never does."""
        return self._was_subscribed

    def is_gone(self, peer: Peer | None, now_s: float) -> bool:
        """Return whether the client closed the session, died, or was cut off for ``LEASE_S``.

        ``peer`` is None when Redis did not answer; a client counts as gone when it has not for ``ABSENCE_S``.
        """
        if peer is None:
            self._away_since_s = now_s if self._away_since_s is None else self._away_since_s
            return now_s - self._away_since_s >= ABSENCE_S
        if self._away_since_s is not None:
            self._away_since_s, self._absent_since_s = None, None
            self._returning_until_s = now_s + LEASE_S
        is_there = peer.subscribed and peer.leased
        if self._returning_until_s is not None:
            if not is_there and now_s < self._returning_until_s:
                return peer.closed
            self._returning_until_s = None
        self._was_subscribed |= peer.subscribed
        lease_ended = self._was_leased and not peer.leased
        self._was_leased |= peer.leased
        if peer.subscribed or not self._was_subscribed:
            self._absent_since_s = None
        elif self._absent_since_s is None:
            self._absent_since_s = now_s
        absent = self._absent_since_s is not None and now_s - self._absent_since_s >= ABSENT_S
        return peer.closed or lease_ended or absent
