"""Leader election: a lock that expires, and epochs that are never assigned twice.

The epoch is ``max(old + 1, Redis' time in milliseconds)``, so that neither a lost write nor a
flushed database assigns one twice. The lock's value is ``owner:epoch``: an owner that campaigns again
gets a new epoch, and what it sent under its earlier epoch is refused.
"""

from __future__ import annotations

from typing import Final

import redis

from galaxy.driver.interfaces import Grant, LockHeld
from galaxy.model.api.views import LeaderView
from galaxy.nexus import keys
from galaxy.nexus.confirm import Confirmer
from galaxy.nexus.connection import BLOCK_S, reaching

_CAMPAIGN: Final = """
local renewed = tonumber(ARGV[3])
local held = redis.call('GET', KEYS[1])
if held then
  local owner, epoch = string.match(held, '^(.*):(%d+)$')
  if owner ~= ARGV[1] or (renewed > 0 and tonumber(epoch) ~= renewed) then
    return {0, owner or held, redis.call('PTTL', KEYS[1])}
  end
  if renewed > 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {1, ARGV[1], renewed}
  end
elseif renewed > 0 then
  return {0, '', 0}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. text, 'PX', ARGV[2])
redis.call('SET', KEYS[2], text)
redis.call('HSET', KEYS[3], 'owner', ARGV[1], 'address', ARGV[4], 'epoch', text,
  'since_s', string.format('%.3f', now / 1000))
redis.call('DEL', KEYS[4])
return {1, ARGV[1], epoch}
"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('RPUSH', KEYS[2], '1')
redis.call('PEXPIRE', KEYS[2], 10000)
return 1
"""


class RedisElections:
    """The election of every role. ``lease_client`` has short timeouts; lease traffic goes over it."""

    def __init__(
        self,
        client: redis.Redis,
        lease_client: redis.Redis,
        address: str,
        *,
        confirmer: Confirmer | None = None,
    ) -> None:
        self._client = client
        self._lease_client = lease_client
        self._address = address
        self._confirmer = confirmer or Confirmer(lease_client, 0, address)
        self._campaign = lease_client.register_script(_CAMPAIGN)
        self._release = lease_client.register_script(_RELEASE)

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Grant | LockHeld:
        """Take the lock if it is free.

        Replicas confirm a new epoch before it is used, and with it everything committed before. So a
        failover neither assigns an epoch twice nor loses anything that this leader is about to read.

        Raises:
            Unreachable: the outcome is not known; campaigning again is safe.
        """
        with reaching(self._address):
            led, holder, number = self._confirmer.run(
                self._campaign, keys=_keys(role), args=[owner, int(ttl_s * 1000), 0, address]
            )
        if led:
            return Grant(role=role, owner=owner, epoch=int(number), ttl_s=ttl_s)
        return LockHeld(role=role, owner=holder.decode(), remaining_s=max(int(number), 0) / 1000)

    def renew(self, grant: Grant) -> bool:
        """Extend the lease; return False when the lead is lost."""
        with reaching(self._address):
            led, _, _ = self._campaign(
                keys=_keys(grant.role), args=[grant.owner, int(grant.ttl_s * 1000), grant.epoch, ""]
            )
        return bool(led)

    def release(self, grant: Grant) -> None:
        """Release the lock, and wake one standby."""
        with reaching(self._address):
            self._release(
                keys=[keys.lock(grant.role), keys.released(grant.role)], args=[f"{grant.owner}:{grant.epoch}"]
            )

    def await_release(self, role: str, timeout_s: float) -> None:
        """Return when a leader released the lock, or after ``timeout_s``, two seconds at most."""
        with reaching(self._address):
            self._client.blpop([keys.released(role)], timeout=max(0.01, min(timeout_s, BLOCK_S)))

    def leader(self, role: str) -> LeaderView | None:
        """Return who leads ``role`` now, or None."""
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.get(keys.lock(role))
            pipe.hgetall(keys.leader(role))
            held, facts = pipe.execute()
        if held is None or not facts:
            return None
        return LeaderView(
            role=role,
            address=facts.get(b"address", b"").decode(),
            epoch=int(facts.get(b"epoch", b"0")),
            since_s=float(facts.get(b"since_s", b"0")),
        )


def _keys(role: str) -> list[str]:
    return [keys.lock(role), keys.epoch(role), keys.leader(role), keys.released(role)]
