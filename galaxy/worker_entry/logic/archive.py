"""Which archive members may be unpacked, and where. Pure checks of names, links and modes.

Stricter than tarfile's data filter where a stricter rule is simpler to verify: no "..", no
absolute names or link targets, no devices or pipes, no link whose target is outside. If the
unpacker also never writes through a link, it cannot write outside the directory.
"""

from __future__ import annotations

from typing import Final

NAME_BYTES_MAX: Final = 4096
RESERVED: Final = ".galaxy"
"""Directory for manifests and staged packages; no member may use this name."""


class MemberRefused(Exception):
    """An archive is refused; the text names the member and the reason."""


def safe_name(name: str) -> str:
    """Return a member's path without "." and doubled slashes; empty for the root itself.

    Raises:
        MemberRefused: the name is absolute, reserved, contains "..", or is no valid file name.
    """
    if name.startswith("/"):
        raise MemberRefused(f"member {name!r} has an absolute name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise MemberRefused(f"member {name!r} leads out of the archive")
    if parts[:1] == [RESERVED]:
        raise MemberRefused(f"member {name!r}: {RESERVED} is reserved for Galaxy")
    if "\0" in name or any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
        raise MemberRefused(f"member {name[:80]!r} has an invalid name")
    if len(name) > NAME_BYTES_MAX:
        raise MemberRefused(f"member {name[:80]!r}... has a name of {len(name)} characters")
    return "/".join(parts)


def safe_symlink(name: str, target: str) -> str:
    """Return ``target`` of the symbolic link ``name`` (itself a safe name) unchanged.

    Raises:
        MemberRefused: the target is absolute, or climbs above the archive's root.
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
    """Return ``mode`` without setuid, setgid, sticky and group's and others' write permission.

    The owner can always read and write. ``default`` replaces a mode of 0. Group and others get execute
    permission only where the owner has it.
    """
    permissions = (mode or default) & 0o755 | 0o600
    return permissions if permissions & 0o100 else permissions & ~0o011
