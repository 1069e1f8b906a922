"""Which members of an archive may be unpacked, and where: names and links, nothing else.

Stricter than tarfile's data filter where that is simpler to be sure of: no "..", no absolute
names or link targets, no devices or pipes, no link whose target lies outside. Together with an
unpacker that never writes through a link, nothing can land outside the directory.
"""

from __future__ import annotations

from typing import Final

NAME_BYTES_MAX: Final = 4096
RESERVED: Final = ".galaxy"
"""Where manifests lie, and packages that are unpacked aside."""


class MemberRefused(Exception):
    """An archive that is not unpacked; the text says which member, and why."""


def safe_name(name: str) -> str:
    """Return a member's path without "." and doubled slashes; empty for the root itself.

    Raises:
        Refused: absolute, reserved, with "..", or not a name a file can have.
    """
    if name.startswith("/"):
        raise MemberRefused(f"member {name!r} has an absolute name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise MemberRefused(f"member {name!r} leads out of the archive")
    if parts[:1] == [RESERVED]:
        raise MemberRefused(f"member {name!r}: {RESERVED} is Galaxy's own")
    if "\0" in name or any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
        raise MemberRefused(f"member {name[:80]!r} has a name that no file can have")
    if len(name) > NAME_BYTES_MAX:
        raise MemberRefused(f"member {name[:80]!r}... has a name of {len(name)} characters")
    return "/".join(parts)


def safe_symlink(name: str, target: str) -> str:
    """Return the target of symbolic link ``name`` (itself a safe name), unchanged.

    Raises:
        Refused: the target is absolute, or climbs above the archive's root.
    """
    if not target or target.startswith("/") or "\0" in target:
        raise MemberRefused(f"link {name!r} points to {target!r}, which is not inside the archive")
    depth = name.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise MemberRefused(f"link {name!r} points to {target!r}, which is outside the archive")
    return target


def safe_mode(mode: int, *, default: int = 0o644) -> int:
    """Return permissions without setuid, setgid, sticky and others' write; the owner can always write."""
    permissions = (mode or default) & 0o755 | 0o600
    return permissions if permissions & 0o100 else permissions & ~0o011
