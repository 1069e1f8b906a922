"""Kernel users for containers: each agent claims a block of uids that no other agent on the host uses.

Many limits of the kernel apply per user (inotify instances, queued signals, pipe buffers), so each
container has its own uid. Containers outlive their agent, so a block stays claimed while the agent's state
directory has a container, a running agent or a running launcher. Claims are files in ``/run``: a
reboot clears them, and it also ends all containers. The gid of a container is the same number as its uid.
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

from galaxy.container.record_file import load_record, save_record
from galaxy.errors import HostError
from galaxy.model.base import Struct

UIDS_DEFAULT: Final = (1_000_000, 1_262_143)
"""Lowest and highest uid if the agent is given no range; enough for 64 agents on one host."""
BLOCK_MIN: Final = 4096
UID_MIN: Final = 65536
"""Lower uids belong to people, services and the account ``nobody``."""
UID_MAX: Final = (1 << 31) - 1
"""Some programs treat higher uids as negative numbers."""
CLAIMS: Final = Path("/run/galaxy/uids")
_LOCKS: Final = ("agent.lock", "launcher.lock")
_LOCK_TRIES: Final = 25
_LOCK_RETRY_S: Final = 0.01


class UidClaim(Struct, frozen=True, kw_only=True):
    """The uids from ``low`` to ``high``, both included, of the agent with state directory ``owner``."""

    low: int
    high: int
    owner: str


def claim_uids(
    state: Path, allowed: tuple[int, int], count: int, *, claims: Path = CLAIMS
) -> tuple[int, int]:
    """Claim ``count`` uids of ``allowed`` for the agent in ``state``, or return its current claim.

    Returns the lowest and the highest uid. The claim is smaller if ``allowed`` has fewer uids. Claims whose
    owners are gone are dropped first.

    Raises:
        HostError: no block is free (the error lists the claims), or the claim cannot be written.
    """
    low, high = allowed
    count = min(max(count, BLOCK_MIN), high - low + 1)
    owner = str(state.resolve())
    try:
        claims.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(claims):
            found = _drop_unused(claims, caller=owner)
            mine = next((one for one in found if _is_usable(one, owner, low, high, count)), None)
            if mine is None:
                first = _free(found, low, high, count)
                mine = UidClaim(low=first, high=first + count - 1, owner=owner)
                save_record(str(claims / str(mine.low)), mine)
            return mine.low, mine.high
    except OSError as error:
        raise HostError(f"cannot claim uids in {claims}: {error.strerror}") from error


def try_lock(lock: int) -> bool:
    """Lock the open lock file of an agent or launcher; return False if another process holds it.

    Retries for 0.25 s, because ``drop_unused_claims`` of other agents locks it for a moment.
    """
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOCK_RETRY_S)  # A blocking flock(2) has no timeout.
    return False


def drop_unused_claims(claims: Path = CLAIMS) -> None:
    """Drop the claims of agents that are gone together with all their containers.

    Raises:
        OSError: the claims cannot be changed.
    """
    if claims.is_dir():
        with _locked(claims):
            _drop_unused(claims)


def list_claims(claims: Path = CLAIMS) -> list[UidClaim]:
    """Return every claim on this host, lowest first, including those of agents that are gone.

    Raises:
        HostError: a claim cannot be read, so it is unknown which uids are free.
        OSError: the directory ``claims`` cannot be read.
    """
    names = [name for name in os.listdir(claims) if name.isdecimal()] if claims.is_dir() else []
    found = []
    for name in sorted(names, key=int):
        path = str(claims / name)
        one = load_record(path, UidClaim)
        if one is not None:
            found.append(one)
        elif os.path.lexists(path):  # Otherwise another process dropped it meanwhile.
            raise HostError(
                f"cannot claim uids: {path} cannot be read",
                hint="find out why; delete it once no container uses a uid of its block",
            )
    return found


def conflicting_users(allowed: tuple[int, int], subuid: Path = Path("/etc/subuid")) -> list[str]:
    """Return what else uses uids of ``allowed``: accounts of this host, and subordinate uids of its users."""
    low, high = allowed
    found = [f"user {user.pw_name} ({user.pw_uid})" for user in pwd.getpwall() if low <= user.pw_uid <= high]
    lines = subuid.read_text(errors="replace").splitlines() if subuid.exists() else []
    for line in lines:
        first, size = (*line.split(":"), "", "")[1:3]
        if first.isdecimal() and size.isdecimal() and int(first) <= high and int(first) + int(size) > low:
            found.append(f"{subuid}: {line}")
    return found


def _is_usable(one: UidClaim, owner: str, low: int, high: int, count: int) -> bool:
    return one.owner == owner and low <= one.low and one.high <= high and one.high - one.low + 1 >= count


@contextlib.contextmanager
def _locked(claims: Path) -> Iterator[None]:
    lock = os.open(claims / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Held only while a few small files are read and written.
        yield
    finally:
        os.close(lock)


def _drop_unused(claims: Path, caller: str = "") -> list[UidClaim]:
    """Drop the claims that are not in use and return the others.

    The claim of ``caller`` counts as used only if it has containers: it holds its own lock itself.
    """
    kept = []
    for one in list_claims(claims):
        if _in_use(Path(one.owner), ignore_locks=one.owner == caller):
            kept.append(one)
        else:
            (claims / str(one.low)).unlink(missing_ok=True)
    return kept


def _in_use(state: Path, *, ignore_locks: bool) -> bool:
    """Return whether a container, agent or launcher of ``state`` may be running."""
    try:
        if any((state / "c").iterdir()):
            return True
    except (FileNotFoundError, NotADirectoryError):
        pass  # No containers.
    except OSError:
        return True  # A failing disk, or no free descriptor: it is unknown, so it counts as used.
    return not ignore_locks and any(_is_locked(state / name) for name in _LOCKS)


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


def _free(found: list[UidClaim], low: int, high: int, count: int) -> int:
    """Return the first uid of the lowest gap of ``count`` free uids."""
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
            hint="--uids LOW-HIGH, a range that nothing else on this machine uses",
        )
    return at
