"""Peers of ``launch.py``: the measured program ``tick``, and bwrap, crun and runc that run it.

Each gets the namespaces, mounts, masks and limits that Galaxy's containers have, as far as it has them.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from galaxy.container.kernel import syscalls
from galaxy.units import MIB

TIMEOUT_S: Final = 20.0
UID: Final = 65534

TICK_X86_64 = bytes.fromhex(
    "b8e4000000"  # mov eax, 228 (clock_gettime)
    "bf01000000"  # mov edi, CLOCK_MONOTONIC
    "488d7424e0"  # lea rsi, [rsp-32]
    "0f05"  # syscall
    "b801000000"  # mov eax, 1 (write)
    "bf01000000"  # mov edi, 1
    "488d7424e0"  # lea rsi, [rsp-32]
    "ba10000000"  # mov edx, 16
    "0f05"  # syscall
    "b83c000000"  # mov eax, 60 (exit)
    "31ff"  # xor edi, edi
    "0f05"  # syscall
)


def write_tick(path: Path) -> None:
    """Write ``tick``: an ELF file with one loadable segment and no libraries."""
    base, header = 0x400000, 64 + 56
    size = header + len(TICK_X86_64)
    elf = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    path.write_bytes(elf + segment + TICK_X86_64)
    path.chmod(0o755)


def milliseconds(data: bytes, started_ns: int) -> float:
    """Return the milliseconds from ``started_ns`` to the time that ``tick`` wrote (struct timespec)."""
    seconds, nanoseconds = struct.unpack("<qq", data[:16])
    return (seconds * 1_000_000_000 + nanoseconds - started_ns) / 1e6


def run_peer(command: list[str], enter: Callable[[], None] | None = None) -> float:
    """Run one peer and return the milliseconds until its program's first instruction."""
    started = time.monotonic_ns()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=enter,
    )
    if len(done.stdout) < 16:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return milliseconds(done.stdout, started)


def bwrap(tick: Path) -> list[str]:
    """Return the command that runs ``tick`` under bubblewrap."""
    links = [
        part for name in ("bin", "sbin", "lib", "lib64") for part in ("--symlink", f"usr/{name}", f"/{name}")
    ]
    return [
        "bwrap", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup",
        "--ro-bind", "/usr", "/usr", *links,
        "--ro-bind", "/etc/alternatives", "/etc/alternatives",
        "--ro-bind", "/etc/ssl", "/etc/ssl",
        "--ro-bind", str(tick.parent), str(tick.parent),
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/home/galaxy",
        "--chdir", "/home/galaxy", "--cap-drop", "ALL", "--new-session",
        "/bin/sh", "-c", f"exec {tick}",
    ]  # fmt: skip


def write_bundle(folder: Path, tick: Path) -> Path:
    """Write an OCI bundle with the namespaces, limits, masks and mounts of Galaxy's containers."""
    root = folder / "bundle" / "rootfs"
    for name in ("usr", "proc", "dev", "tmp", "sys", "etc", "home/galaxy", str(tick.parent).lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    bind = ["bind", "ro", "nosuid", "nodev"]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": UID, "gid": UID},
            "cwd": "/home/galaxy",
            "noNewPrivileges": True,
            "args": ["/bin/sh", "-c", f"exec {tick}"],
            "env": ["PATH=/usr/bin:/bin"],
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
            },
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "nodev", "size=65536k"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "nodev", "noexec", "ro"],
            },
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": bind},
            {"destination": str(tick.parent), "type": "bind", "source": str(tick.parent), "options": bind},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=65536k"]},
            {
                "destination": "/home/galaxy",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["size=16384k", "mode=1777"],
            },
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount", "cgroup")],
            "resources": {
                "cpu": {"quota": 100000, "period": 100000, "shares": 1024},
                "memory": {"limit": 96 * MIB},
                "pids": {"limit": 96},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["unshare", "setns", "mount", "keyctl", "bpf"], "action": "SCMP_ACT_ERRNO"}
                ],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
    (folder / "bundle" / "config.json").write_text(json.dumps(config))
    return folder / "bundle"


class HiddenUnified:
    """A mount namespace without the v2 tree that is mounted beside v1 hierarchies: crun refuses both."""

    def __init__(self) -> None:
        self.fd = -1
        if os.path.ismount("/sys/fs/cgroup/unified"):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
                syscalls.unmount("/sys/fs/cgroup/unified")
                os.write(write, b"x")
                os.read(os.pipe()[0], 1)
            os.read(read, 1)
            self.fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def enter(self) -> None:
        if self.fd >= 0:
            ctypes.CDLL(None).setns(self.fd, 0)
