"""Redis access rules: one login per role, and one per host for agents.

A rule names keys together with commands, so that a stolen login reaches what its role needs and
nothing more. Redis 7 or Valkey: selectors (in parentheses) allow some commands on some keys only.
Only ``admin`` can list keys, so the random ids of replies and sessions protect them like passwords.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from galaxy.model.messages import names
from galaxy.nexus import keys

ADMIN: Final = "admin"
AGENT: Final = "agent"
WEB: Final = "web"
CLIENT: Final = "client"
REPLICA: Final = "replica"
SENTINEL: Final = "sentinel"
ROLES: Final = (names.RESMAN, names.APPMASTER, AGENT, WEB, CLIENT)
"""Roles with a login of their own; ``agent`` has one for each host."""
REDIS_OWN: Final = {
    REPLICA: "+psync +replconf +ping",
    SENTINEL: "+ping +info +role +slaveof +multi +exec +publish +subscribe +config|rewrite"
    " +client|setname +client|kill +script|kill &__sentinel__:hello",
}
"""Rules of Redis' own parts: a replica's login at its master, and Sentinel's login at every server."""

_HELLO: Final = "+hello +auth +ping +select +client|setname"
_MULTI: Final = "+multi +exec +discard +watch +unwatch"
_PIDBOX: Final = "/0.celery.pidbox"
_EVENTS: Final = "/0.celeryev/*"
_REPLIES: Final = "reply.celery.pidbox"
_MAILBOXES: Final = (
    " ".join(
        f"~{table}{exchange}"
        for table in ("_kombu.binding.", "_kombu.binding_permanent.")
        for exchange in ("celery.pidbox", "celeryev", _REPLIES)
    )
    + " ~_kombu.binding_deadlines"
)
"""kombu's tables of the listeners to remote control and events; every channel cleans them up."""
_KOMBU: Final = (
    f"{_MULTI} +time +brpop +llen +del +exists +pexpire +expire +sadd +srem +smembers"
    " +zadd +zrem +zrange +zrangebyscore +evalsha +script|load +script|exists"
    f" +psubscribe +punsubscribe +unsubscribe {_MAILBOXES}"
)
_HEARTBEATS: Final = (keys.HEARTBEATS, keys.HEARTBEAT_FACTS, keys.USAGES, keys.METERS)
_LEADER_QUEUES: Final = tuple(queue for role in names.PARTS for queue in names.leader_queues(role))
_SESSIONS: Final = (
    "(+evalsha +get +set +rpush +lpop +blpop +blmove +lindex +llen +hget +hset +del +exists +expire"
    f" ~{keys.session('*', '*')})"
)
"""Both ends of a session; a login that does not know the id cannot name the keys."""
_PRESENCE: Final = "+subscribe +unsubscribe &" + keys.session_client("*")
"""A client's subscription to its session; nobody may publish there, and only numbers are read."""
_PACKAGES: Final = (
    f"(+hget %R~{keys.package('*')} %R~{keys.table(names.APPMASTER, 'packages')})"  # One row, one chunk.
)
_UPLOADS: Final = f"(+evalsha +hset +hget +hlen +expire ~{keys.upload('*')})"
"""A client's end of an upload. As with sessions, only who was told the id can name the key."""


def login(role: str, host: str = "") -> str:
    """Return the name of the Redis user of ``role``; ``host`` matters for agents."""
    return f"{AGENT}-{host}" if role == AGENT else role


def password(secret: str, user: str) -> str:
    """Return the password of ``user``: derived from the cluster's secret, which it does not reveal."""
    return hmac.new(secret.encode(), f"redis:{user}".encode(), hashlib.sha256).hexdigest()


def rules(role: str, host: str = "", *, setinfo: bool = True) -> tuple[str, ...]:
    """Return the ACL rules of ``role``, as arguments of ACL SETUSER or parts of an ACL file line.

    ``setinfo`` is False for Redis 7.0 and 7.1, which do not know CLIENT SETINFO.

    Raises:
        ValueError: there is no such role, or an agent without a host.
    """
    hello = _HELLO + (" +client|setinfo" if setinfo else "")
    if role == ADMIN:
        return ("+@all", "~*", "&*")
    if role in REDIS_OWN:
        return tuple(REDIS_OWN[role].split())
    if role == names.RESMAN:
        words = (
            f"{hello} {_leader(role)} (+lpush {_write('agent.*', names.leaders_queue(names.APPMASTER))})"
            f" (+rpush +expire {_write(keys.reply('*'))}) {_forget()}"
        )
    elif role == names.APPMASTER:
        words = (
            f"{hello} {_leader(role)} (+lpush {_write('appworker.*', names.leaders_queue(names.RESMAN))})"
            f" (+get +hgetall +hscan +hmget +hkeys {_read(keys.PREFIX + names.RESMAN + ':*')})"
            f" +rename +persist ~{keys.upload('*')}"
            f" (+rpush +expire {_write(keys.reply('*'))})"
        )
    elif role == AGENT and host:
        words = (
            f"{hello} {_worker(AGENT, host, names.agent_queue(host), names.appworker_queue(host))}"
            f" {_reports(host)}"
            f" (+evalsha +zadd +hset {' '.join(f'~{key}' for key in _HEARTBEATS)}) {_SESSIONS} {_PACKAGES}"
            " +pubsub|numsub"
        )
    elif role == WEB:
        words = f"{hello} {_web()}"
    elif role == CLIENT:
        words = f"{hello} {_client()}"
    else:
        raise ValueError(f"no rules for role {role!r} and host {host!r}")
    return tuple(words.split())


def knows_setinfo(version: str) -> bool:
    """Return whether a server knows CLIENT SETINFO: Redis 7.2 and later, and every Valkey."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return numbers >= [7, 2]


def line(role: str, secret: str, host: str = "", *, setinfo: bool = True) -> str:
    """Return the ACL file line that creates the login of ``role``; it contains a hash, not the password."""
    user = login(role, host)
    digest = hashlib.sha256(password(secret, user).encode()).hexdigest()
    return " ".join(
        ("user", user, "on", f"#{digest}", "resetchannels", "-@all", *rules(role, host, setinfo=setinfo))
    )


def file(secret: str, hosts: tuple[str, ...], *, setinfo: bool = True, sentinel: bool = False) -> str:
    """Return an ACL file with every role, an agent for each of ``hosts``, and an admin; no other login.

    ``sentinel`` adds the logins of replicas and Sentinels.

    The default user is off, so it cannot log in, but it keeps its rights: Redis 7.0 reads its
    append-only file as that user, and silently skips every transaction that the user may not run.
    """
    lines = ["user default off resetpass ~* &* +@all", line(ADMIN, secret)]
    lines += [line(role, secret) for role in REDIS_OWN if sentinel]
    lines += [line(role, secret, setinfo=setinfo) for role in ROLES if role != AGENT]
    lines += [line(AGENT, secret, host, setinfo=setinfo) for host in hosts]
    return "\n".join(lines) + "\n"


def hosts_of(text: str) -> tuple[str, ...]:
    """Return the hosts whose agents have a login in an ACL file."""
    users = [words[1] for row in text.splitlines() if len(words := row.split()) > 1 and words[0] == "user"]
    return tuple(user.removeprefix(f"{AGENT}-") for user in users if user.startswith(f"{AGENT}-"))


def _leader(role: str) -> str:
    """Return the rules of a worker that also campaigns, commits, and reads heartbeats."""
    own = f"~{keys.PREFIX}{role}:* ~{keys.TRACE} ~{keys.trace_of('*')}"
    return (
        f"{_worker(role, '*', *names.leader_queues(role))} {own}"
        " +getdel +strlen +zcard +zpopmin +bzpopmin +wait +time +blpop +pttl +hgetall +hscan +lrange +xadd"
        " +expire"
        f" (+xread +xrange +xrevrange +xinfo|stream {_read(keys.changes(role))})"
        f" (+hmget +hkeys {_read(keys.table(role, '*'))})"
        f" (+zrange +zmscore +hgetall +hmget {_read(*_HEARTBEATS)})"
    )


def _forget() -> str:
    """Return the rules by which ResMan deletes what is left of an agent."""
    waiting = " ".join(f"~{keys.reporting(role)}" for role in names.PARTS)
    own = " ".join(f"~{key}" for key in keys.of_agent("*"))
    return f"(+zrem +hdel {' '.join(f'~{key}' for key in _HEARTBEATS)} {waiting}) (+del {own})"


def _worker(role: str, host: str, *queues: str) -> str:
    """Return the rules of a Celery worker: queues, unacknowledged messages, mailbox, events."""
    node = f"{role}@{host}"
    own = (*queues, f"{node}.unacked*", f"{node}.celery.pidbox*")
    return (
        f"{_KOMBU} +rpush +lpush +hset +hget +hdel +set +get"
        f" {' '.join(f'~{key}' for key in own)} &{_PIDBOX}"
        f" (+publish &{_EVENTS})"
        f" (+lpush {_write('*.' + _REPLIES)})"
    )


def _reports(host: str) -> str:
    """Return the rules by which an agent writes its own mailboxes, and adds its name to those that wait."""
    mailboxes = " ".join(f"~{keys.report(role, host)}" for role in names.PARTS)
    waiting = " ".join(f"~{keys.reporting(role)}" for role in names.PARTS)
    return f"(+evalsha {mailboxes} {waiting}) (+set +exists {mailboxes}) (+zadd {waiting})"


def _web() -> str:
    """Return Flower's rules: it listens to events, queries workers, reads queue lengths; sends no task."""
    return (
        f"{_KOMBU} &{_EVENTS} ~*.{_REPLIES} ~celeryev.*"
        f" (+publish &{_PIDBOX})"
        f" (+llen {_read(WEB, *_LEADER_QUEUES, 'agent.*', 'appworker.*')})"
    )


def _client() -> str:
    """Return a client's rules: send requests, await answers, join sessions, read leaders and heartbeats."""
    leaders = (key(role) for role in (names.RESMAN, names.APPMASTER) for key in (keys.lock, keys.leader))
    return (
        f"{_MULTI} +time +script|load {_PRESENCE}"
        f" (+lpush +lrem {_write(names.APPMASTER, names.RESMAN)})"
        f" (+blpop ~{keys.reply('*')}) {_SESSIONS} {_UPLOADS}"
        f" (+xread +xrevrange {_read(keys.trace_of('*'))})"
        f" (+get +hgetall {_read(*leaders)})"
        f" (+zrange +hgetall {_read(keys.HEARTBEATS, keys.HEARTBEAT_FACTS)})"
    )


def _read(*patterns: str) -> str:
    return " ".join(f"%R~{pattern}" for pattern in patterns)


def _write(*patterns: str) -> str:
    return " ".join(f"%W~{pattern}" for pattern in patterns)
