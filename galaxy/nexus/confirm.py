"""Writes that replicas have before anybody hears of them: a script, then WAIT on the same connection.

WAIT answers how many replicas have what this connection wrote last, and whatever was written
before it; where the connection wrote nothing, newer servers do not wait at all. So a script that
finds its work done already must write nevertheless.

Some replicas are not enough: Sentinels may choose another one, and a master that is being replaced
can still have a replica that follows it. So every replica that might be chosen must have it, which
are all but those that most Sentinels hold for dead; and nobody may be about to be chosen.
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
"""How long replicas are waited for; shorter than the shortest timeout of a socket."""


class Confirmer:
    """Runs scripts on ``client`` and has replicas confirm, ``replicas`` at least.

    0: the server's word is enough. ``sentinels`` led ``client`` to the server, if any did.
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
            Unreachable: they have not; whether it will last is not known. Run the same again.
        """
        if not self._replicas:
            return script(keys=keys, args=args)
        asked = self._asked
        master = self._master()
        answer, confirmed = self._send(script, keys, args)
        needed = self._needed(confirmed, master)
        if asked <= confirmed < needed:  # It was asked for too few.
            master = self._master()
            answer, confirmed = self._send(script, keys, args)
            needed = self._needed(confirmed, master)
        if confirmed < needed:
            raise Unreachable(
                f"only {confirmed} of {needed} replicas of Redis at {self._address} confirm a write",
                details=[f"waited {CONFIRM_S:g} s"],
                hint="start the replicas; while Sentinels choose a new master, the same again in a while",
            )
        return answer

    def _master(self) -> Address | None:
        """Return the master that the next write goes to; afterwards another may be known already."""
        if self._sentinels is None:
            return None
        pool: Any = self._client.connection_pool
        with reaching(self._address):
            master: Address = pool.master_address or pool.get_master_address()
        return master

    def _needed(self, confirmed: int, master: Address | None) -> int:
        """Return how many must confirm; the fewer they are, the better it must be known.

        ``master`` was known for it before the write.
        """
        if self._sentinels is None:
            return self._replicas
        pool: Any = self._client.connection_pool
        with reaching(self._address):
            if confirmed >= max(self._sentinels.known(pool.service_name), self._replicas):
                return self._replicas
            living = self._sentinels.living(pool.service_name, master)
        self._asked = max(living, self._replicas)
        return self._asked

    def _send(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, int]:
        try:
            return self._pipe(script.sha, keys, args)
        except redis.exceptions.NoScriptError:  # A new master has none of the old one's scripts.
            self._client.script_load(script.script)
            return self._pipe(script.sha, keys, args)

    def _pipe(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, int]:
        pipe = self._client.pipeline(transaction=False)
        untyped: Any = pipe
        untyped.execute_command("EVALSHA", sha, len(keys), *keys, *args)
        untyped.execute_command("WAIT", self._asked, int(CONFIRM_S * 1000))
        answer, confirmed = pipe.execute()
        return answer, int(confirmed)
