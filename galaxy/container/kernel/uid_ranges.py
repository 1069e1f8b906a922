"""Which kernel users the containers of one agent may have: a block of a range that no other agent uses.

The kernel counts much by user alone (inotify instances, queued signals, large pipes), so each container
has a uid of its own. Containers outlive their agent, so a block stays claimed as long as its state
directory holds a container, an agent or a launcher; claims lie in ``/run``, which a reboot clears, as
it does containers. A gid is the same number as its uid.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from galaxy.container.kernel import processes
from galaxy.errors import HostError
from galaxy.model.base import Struct

RANGE: Final = (1_000_000, 1_262_143)
"""By default; room for 64 agents on one machine."""
BLOCK_MIN: Final = 4096
UID_MIN: Final = 65536
"""Below are people, services, and names for nobody."""
UID_MAX: Final = (1 << 31) - 1
"""Some programs take higher ones for negative."""
CLAIMS: Final = Path("/run/galaxy/uids")
_LOCKS: Final = ("agent.lock", "launcher.lock")
_TRIES: Final = 25
_TRY_S: Final = 0.01


class Claim(Struct, frozen=True, kw_only=True):
    """The uids from ``low`` to ``high``, both included, of the agent with state directory ``owner``."""

    low: int
    high: int
    owner: str


def claim(state: Path, allowed: tuple[int, int], count: int, *, claims: Path = CLAIMS) -> tuple[int, int]:
    """Claim ``count`` uids of ``allowed`` for the agent in ``state``, or find its claim again.

    Fewer when the whole range is smaller. Claims whose owners are gone are dropped.

    Raises:
        HostError: no such block is free, or claims cannot be kept; says who has them.
    """
    low, high = allowed
    count = min(max(count, BLOCK_MIN), high - low + 1)
    owner = str(state.resolve())
    try:
        claims.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(claims):
            found = _swept(claims, asking=owner)
            mine = next((one for one in found if _serves(one, owner, low, high, count)), None)
            if mine is None:
                first = _free(found, low, high, count)
                mine = Claim(low=first, high=first + count - 1, owner=owner)
                processes.keep(str(claims / str(mine.low)), mine)
            return mine.low, mine.high
    except OSError as error:
        raise HostError(f"cannot claim uids in {claims}: {error.strerror}") from error


def hold(lock: int) -> bool:
    """Take the open lock file of an agent or launcher, or return False: another one has it.

    Tried for a while, since agents that look for claims that nobody uses touch it for a moment.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_TRY_S)  # To wait for a lock has no timeout.
    return False


def sweep(claims: Path = CLAIMS) -> None:
    """Drop the claims of agents that are gone with all their containers.

    Raises:
        OSError: the claims are not ours to change.
    """
    if claims.is_dir():
        with _locked(claims):
            _swept(claims)


def claimed(claims: Path = CLAIMS) -> list[Claim]:
    """Return every claim on this machine, lowest first, those of agents that are gone too.

    Raises:
        HostError: one cannot be read; whose uids are free is not known then.
        OSError: nor can ``claims``.
    """
    names = [name for name in os.listdir(claims) if name.isdecimal()] if claims.is_dir() else []
    found = []
    for name in sorted(names, key=int):
        path = str(claims / name)
        one = processes.recall(path, Claim)
        if one is not None:
            found.append(one)
        elif os.path.lexists(path):  # Else it was dropped between the two looks.
            raise HostError(
                f"cannot claim uids: {path} cannot be read",
                hint="see why; delete it once no container has a uid from that number on",
            )
    return found


def strangers(allowed: tuple[int, int], subuid: Path = Path("/etc/subuid")) -> list[str]:
    """Return who else has uids in ``allowed``: accounts of this host, and ranges given to its users."""
    low, high = allowed
    found = [f"user {user.pw_name} ({user.pw_uid})" for user in pwd.getpwall() if low <= user.pw_uid <= high]
    lines = subuid.read_text(errors="replace").splitlines() if subuid.exists() else []
    for line in lines:
        first, size = (*line.split(":"), "", "")[1:3]
        if first.isdecimal() and size.isdecimal() and int(first) <= high and int(first) + int(size) > low:
            found.append(f"{subuid}: {line}")
    return found


def _serves(one: Claim, owner: str, low: int, high: int, count: int) -> bool:
    return one.owner == owner and low <= one.low and one.high <= high and one.high - one.low + 1 >= count


@contextlib.contextmanager
def _locked(claims: Path) -> Iterator[None]:
    lock = os.open(claims / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Held for a few files' reading and writing.
        yield
    finally:
        os.close(lock)


def _swept(claims: Path, asking: str = "") -> list[Claim]:
    """Drop claims that nobody uses, those of who is ``asking`` too; return the others."""
    kept = []
    for one in claimed(claims):
        if _in_use(Path(one.owner), asking=one.owner == asking):
            kept.append(one)
        else:
            (claims / str(one.low)).unlink(missing_ok=True)
    return kept


def _in_use(state: Path, *, asking: bool) -> bool:
    """Return whether a container of ``state`` may be alive; who is ``asking`` has its lock itself."""
    try:
        if any((state / "c").iterdir()):
            return True
    except (FileNotFoundError, NotADirectoryError):
        pass  # Gone, or never used.
    except OSError:
        return True  # A disk that fails, or no more open files: nobody knows.
    return not asking and any(_is_locked(state / name) for name in _LOCKS)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _free(found: list[Claim], low: int, high: int, count: int) -> int:
    """Return where ``count`` free uids begin: the first gap that is large enough."""
    at = low
    for one in sorted(found, key=lambda one: one.low):
        if one.low - at >= count:
            break
        at = max(at, one.high + 1)
    if at + count - 1 > high:
        owners = [
            f"{one.low}-{one.high}: {one.owner}" for one in found if one.low <= high and one.high >= low
        ]
        raise HostError(
            f"no {count} uids of {low}-{high} are free for this agent's containers",
            details=owners,
            hint="--uids LOW-HIGH, a range that nobody else on this machine uses",
        )
    return at
