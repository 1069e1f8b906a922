"""A small ``/etc``: generated names, copies of harmless files, and never a secret."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from typing import Final

BOUND: Final = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/fonts", "/etc/java-11-openjdk",
    "/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/ld.so.conf.d", "/etc/pki", "/etc/perl",
    "/etc/python3", "/etc/ssl", "/etc/terminfo",
)  # fmt: skip
"""Directories shown from the host, read-only, where they are."""

PRIVATE: Final = ("/etc/ssl/private", "/etc/pki/tls/private", "/etc/pki/CA/private", "/etc/pki/rsyslog")
"""Directories inside them that hold keys, and are covered."""

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


def write(etc: str, *, run_uid: int, run_gid: int) -> None:
    """Fill the empty directory ``etc``; ``hosts`` and ``hostname`` point to each container's own ``/run``."""
    _put(f"{etc}/passwd", _passwd(run_uid, run_gid))
    _put(f"{etc}/group", _group(run_gid))
    _put(f"{etc}/nsswitch.conf", _NSSWITCH.encode())
    os.symlink("/run/hosts", f"{etc}/hosts")
    os.symlink("/run/hostname", f"{etc}/hostname")
    os.symlink("/proc/mounts", f"{etc}/mtab")
    for name in COPIED:
        _copy(f"/etc/{name}", f"{etc}/{name}")


def write_names(run: str, hostname: str) -> None:
    """Write the host name of one container, and the names that resolve without DNS."""
    _put(f"{run}/hostname", f"{hostname}\n".encode())
    _put(f"{run}/hosts", f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost\n".encode())


def signature() -> tuple[tuple[int, int], ...]:
    """Return what changes when the host's name servers, libraries or time zone do."""
    found = []
    for name in _CHANGING:
        try:
            stat = os.stat(f"/etc/{name}")
        except OSError:
            found.append((0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns))
    return tuple(found)


def _passwd(uid: int, gid: int) -> bytes:
    lines = ["root:x:0:0:root:/:/bin/sh"]
    if uid > 0:
        name = "galaxy"
        with contextlib.suppress(KeyError):
            name = pwd.getpwuid(uid).pw_name
        lines.append(f"{name}:x:{uid}:{max(gid, 0)}:{name}:/tmp:/bin/sh")
    if uid != 65534:
        lines.append("nobody:x:65534:65534:nobody:/:/usr/sbin/nologin")
    return ("\n".join(lines) + "\n").encode()


def _group(gid: int) -> bytes:
    lines = ["root:x:0:", "tty:x:5:"]
    if gid > 0 and gid != 5:
        name = "galaxy"
        with contextlib.suppress(KeyError):
            name = grp.getgrgid(gid).gr_name
        lines.append(f"{name}:x:{gid}:")
    if gid != 65534:
        lines.append("nogroup:x:65534:")
    return ("\n".join(lines) + "\n").encode()


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


def _put(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
