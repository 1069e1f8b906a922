"""Writes that replicas confirm before anything depends on them: a script, then WAIT on its connection.

WAIT returns how many replicas have this connection's last write and everything before it. Newer
servers do not wait at all on a connection that wrote nothing, so a script that finds its work already
done must still write something.

A fixed number of replicas is not enough: Sentinels may promote another one, and a master that is being
replaced can still have a replica. So every replica that could be promoted must confirm: all except
those that a majority of Sentinels considers dead. And no failover may be in progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.commands.core import Script

from galaxy.errors import Unreachable
from galaxy.nexus.connection import reaching
from galaxy.nexus.sentinel import Address, Sentinels

CONFIRM_S: Final = 0.6
"""Longest wait for replicas; shorter than the shortest socket timeout."""


class Confirmer:
    """Runs scripts on ``client`` and waits until at least ``replicas`` replicas confirm; 0 waits for none.

    ``sentinels`` are those through which ``client`` finds its server, if any.
    """

    def __init__(
        self, client: redis.Redis, replicas: int, address: str, sentinels: Sentinels | None = None
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._address = address
        self._sentinels = sentinels
        self._asked = replicas

    def run(self, script: Script, *, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Return what ``script`` returned, once enough replicas have what it wrote.

        Raises:
            Unreachable: too few replicas confirm; it is not known whether the write is durable. Run the
                same script again.
        """
        if not self._replicas:
            return script(keys=keys, args=args)
        asked = self._asked
        master = self._master()
        answer, confirmed = self._send(script, keys, args)
        needed = self._needed(confirmed, master)
        if asked <= confirmed < needed:  # WAIT asked for too few replicas.
            master = self._master()
            answer, confirmed = self._send(script, keys, args)
            needed = self._needed(confirmed, master)
        if confirmed < needed:
            raise Unreachable(
                f"only {confirmed} of {needed} replicas of Redis at {self._address} confirm a write",
                details=[f"waited {CONFIRM_S:g} s"],
                hint="start the replicas; while Sentinels choose a new master, try again in a while",
            )
        return answer

    def _master(self) -> Address | None:
        """Return the master that the next write goes to; call it before the write."""
        if self._sentinels is None:
            return None
        pool: Any = self._client.connection_pool
        with reaching(self._address):
            master: Address = pool.master_address or pool.get_master_address()
        return master

    def _needed(self, confirmed: int, master: Address | None) -> int:
        """Return how many replicas must confirm a write that ``confirmed`` of them have.

        If all known replicas confirmed, no live count is needed; otherwise a majority of Sentinels must
        agree on ``master``, the one known before the write, and on which replicas are dead.
        """
        if self._sentinels is None:
            return self._replicas
        pool: Any = self._client.connection_pool
        with reaching(self._address):
            if confirmed >= max(self._sentinels.known_replicas(pool.service_name), self._replicas):
                return self._replicas
            live = self._sentinels.live_replicas(pool.service_name, master)
        self._asked = max(live, self._replicas)
        return self._asked

    def _send(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, int]:
        try:
            return self._pipe(script.sha, keys, args)
        except redis.exceptions.NoScriptError:  # A new master does not have the old one's scripts.
            self._client.script_load(script.script)
            return self._pipe(script.sha, keys, args)

    def _pipe(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, int]:
        pipe = self._client.pipeline(transaction=False)
        untyped: Any = pipe
        untyped.execute_command("EVALSHA", sha, len(keys), *keys, *args)
        untyped.execute_command("WAIT", self._asked, int(CONFIRM_S * 1000))
        answer, confirmed = pipe.execute()
        return answer, int(confirmed)
