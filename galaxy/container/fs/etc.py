"""The ``/etc`` of a container: generated files, copies of files without secrets, some directories."""

from __future__ import annotations

import os
from typing import Final

BOUND: Final = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/fonts", "/etc/java-11-openjdk",
    "/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/ld.so.conf.d", "/etc/pki", "/etc/perl",
    "/etc/python3", "/etc/ssl", "/etc/terminfo",
)  # fmt: skip
"""Directories that are bind-mounted from the host, read-only, at the same path."""

PRIVATE: Final = ("/etc/ssl/private", "/etc/pki/tls/private", "/etc/pki/CA/private", "/etc/pki/rsyslog")
"""Directories with private keys inside ``BOUND``; an empty file system is mounted over each."""

COPIED: Final = (
    "bash.bashrc", "debian_version", "gai.conf", "host.conf", "inputrc", "ld.so.cache", "ld.so.conf",
    "locale.alias", "locale.conf", "localtime", "magic", "mime.types", "networks", "os-release", "profile",
    "protocols", "redhat-release", "resolv.conf", "rpc", "services", "timezone",
)  # fmt: skip
_CHANGING: Final = ("resolv.conf", "ld.so.cache", "localtime")
_FILE_MAX: Final = 2 << 20

_NSSWITCH: Final = """passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
"""


OWN: Final = ("hosts", "hostname", "passwd", "group")
"""Files that differ between containers: links in ``/etc`` to each container's ``/run``."""
NOBODY: Final = 65534
"""The uid and gid of the account ``nobody``."""


def write(etc: str) -> None:
    """Fill the empty directory ``etc``; files that differ between containers become links to ``/run``."""
    _put(f"{etc}/nsswitch.conf", _NSSWITCH.encode())
    for name in OWN:
        os.symlink(f"/run/{name}", f"{etc}/{name}")
    os.symlink("/proc/mounts", f"{etc}/mtab")
    for name in COPIED:
        _copy(f"/etc/{name}", f"{etc}/{name}")


def write_own(run: str, hostname: str, *, uid: int, gid: int, home: str) -> None:
    """Write one container's own files: its host name, and names for its user (if not root) and group."""
    _put(f"{run}/hostname", f"{hostname}\n".encode())
    _put(f"{run}/hosts", f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost\n".encode())
    _put(f"{run}/passwd", _passwd(uid, gid, home), mode=0o444)
    _put(f"{run}/group", _group(gid), mode=0o444)


def signature() -> tuple[tuple[int, int], ...]:
    """Return a value that changes when the host's name servers, libraries or time zone change."""
    found = []
    for name in _CHANGING:
        try:
            stat = os.stat(f"/etc/{name}")
        except OSError:
            found.append((0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns))
    return tuple(found)


def _passwd(uid: int, gid: int, home: str) -> bytes:
    lines = ["root:x:0:0:root:/:/bin/sh"]
    if uid > 0 and uid != NOBODY:
        lines.append(f"galaxy:x:{uid}:{max(gid, 0)}:galaxy:{_field(home)}:/bin/sh")
    lines.append(f"nobody:x:{NOBODY}:{NOBODY}:nobody:/:/usr/sbin/nologin")
    return ("\n".join(lines) + "\n").encode()


def _group(gid: int) -> bytes:
    lines = ["root:x:0:", "tty:x:5:"]
    if gid not in (-1, 0, 5, NOBODY):
        lines.append(f"galaxy:x:{gid}:")
    lines.append(f"nogroup:x:{NOBODY}:")
    return ("\n".join(lines) + "\n").encode()


def _field(path: str) -> str:
    """Return ``path`` if it can be a field of passwd(5), else the root directory."""
    return "/" if set(path) & {":", "\n"} else path


def _copy(source: str, target: str) -> None:
    if os.path.islink(source) and os.path.realpath(source).startswith("/usr/"):
        os.symlink(os.path.realpath(source), target)
        return
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _put(target, os.read(fd, _FILE_MAX))
    finally:
        os.close(fd)


def _put(path: str, data: bytes, *, mode: int = 0o644) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
