"""Forking PID 1 of a container without root: a user namespace that maps only the agent's own user."""

from __future__ import annotations

import os
from typing import Final

from galaxy.container.kernel import syscalls
from galaxy.container.net import namespace

_NAMESPACES: Final = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
)
_ANSWER_BYTES_MAX: Final = 4096


def fork_userns(*, private_network: bool) -> int:
    """Fork PID 1 of new namespaces without root; return 0 in it, else its pid.

    A process cannot move itself into a PID namespace. An intermediate process therefore creates the
    namespaces, forks, and exits; PID 1 is then reparented to the caller, which must be a subreaper.

    Raises:
        OSError: the namespaces cannot be created; the message names the call that failed.
    """
    uid, gid = os.geteuid(), os.getegid()
    read, write = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        os.close(read)
        try:
            syscalls.unshare(_NAMESPACES | namespace.clone_flags(private=private_network))
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
            pid = os.fork()
        except OSError as error:
            os.write(write, f"!{error.errno} {error}".encode())
            os._exit(1)
        if pid == 0:
            os.close(write)
            return 0
        os.write(write, str(pid).encode())
        os._exit(0)
    os.close(write)
    try:
        answer = os.read(read, _ANSWER_BYTES_MAX).decode()
    finally:
        os.close(read)
        os.waitpid(intermediate, 0)
    if not answer.isdecimal():
        code, _, text = answer.lstrip("!").partition(" ")
        raise OSError(int(code or 0), text or "the intermediate process died")
    return int(answer)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
