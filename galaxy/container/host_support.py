"""Find out what this host can enforce, by trying it, and what would enable the rest."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from galaxy.container.cgroup.detect import NEEDED, Hierarchies, detect
from galaxy.container.kernel import uid_ranges
from galaxy.container.launcher.plan import FULL, PROCESS, USERNS
from galaxy.errors import HostError
from galaxy.model.base import Struct

_PROBE_TIMEOUT_S: Final = 20.0
_ENTER_MS_MAX: Final = 3.0
_KERNEL_MIN: Final = (5, 12)
"""For mount_setattr(2); every other call that containers need is older."""


ENFORCEABLE: Final = ("cpu", "memory", "pids", "io", "disk", "namespaces", "seccomp", "user")
"""Everything that a host can enforce; jobs and ``--require`` name it so."""


class Finding(Struct, frozen=True, kw_only=True):
    """The result of one check; ``remedy`` says what would make it ``ok``, empty if nothing would."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class HostAbilities(Struct, frozen=True, kw_only=True):
    """What containers get on this host; ``mode`` is ``full``, ``userns`` or ``process``."""

    mode: str
    enforced: tuple[str, ...]
    """Of ``ENFORCEABLE``."""
    cgroup: str
    """``v1``, ``v2`` or empty."""
    kernel: str
    findings: tuple[Finding, ...]


def probe() -> HostAbilities:
    """Try everything that containers need, each in its own process; takes under a second."""
    root = os.geteuid() == 0
    hierarchies = detect()
    kernel = _kernel()
    root_user = Finding(
        name="root",
        ok=root,
        detail="runs as root" if root else f"runs as user {os.geteuid()}",
        remedy="" if root else "run the agent as root for limits, enforced disk sizes and separate users",
    )
    cgroups, latency = _cgroups(hierarchies, root=root)
    namespaces = _namespaces(root=root)
    users = _user_namespace()
    loop = _loop(root=root)
    filters = _seccomp()
    io = _io(hierarchies, usable=cgroups.ok)
    own_users = (_own_users(),) if root else ()
    findings = (
        kernel,
        root_user,
        cgroups,
        *latency,
        namespaces,
        users,
        *own_users,
        loop,
        filters,
        io,
        _limits(),
    )
    if root and kernel.ok and cgroups.ok and namespaces.ok:
        mode = FULL
    else:
        mode = USERNS if users.ok and kernel.ok else PROCESS
    enforced: list[str] = []
    if mode == FULL:
        enforced += ["cpu", "memory", "pids", *(["io"] if io.ok else []), *(["disk"] if loop.ok else [])]
    if mode != PROCESS:
        enforced.append("namespaces")
    if filters.ok:
        enforced.append("seccomp")
    if mode == FULL:
        enforced.append("user")
    return HostAbilities(
        mode=mode,
        enforced=tuple(enforced),
        cgroup=hierarchies.version if mode == FULL else "",
        kernel=platform.release(),
        findings=(*findings, _limits()),
    )


def _kernel() -> Finding:
    release = platform.release()
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    needed = ".".join(map(str, _KERNEL_MIN))
    return Finding(
        name="kernel",
        ok=version >= _KERNEL_MIN,
        detail=f"Linux {release}",
        remedy=""
        if version >= _KERNEL_MIN
        else f"Linux {needed} or newer; containers fall back to plain processes",
    )


def _cgroups(hierarchies: Hierarchies, *, root: bool) -> tuple[Finding, tuple[Finding, ...]]:
    """Check cgroups and, if they work, how long a process takes to enter one."""
    name, version = "cgroups", hierarchies.version
    if not version:
        missing = sorted(NEEDED - hierarchies.v1.keys() - hierarchies.v2_controllers)
        remedy = "mount cgroup2 at /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1"
        return Finding(name=name, ok=False, detail=f"no controllers {', '.join(missing)}", remedy=remedy), ()
    if not root:
        remedy = "run the agent as root: cpu, memory and pids are limited then"
        return Finding(name=name, ok=False, detail=f"{version}, not writable", remedy=remedy), ()
    ok, output = _try("cgroups")
    if not ok:
        remedy = "give the agent a writable cgroup hierarchy (in a container: --privileged --cgroupns=host)"
        return Finding(name=name, ok=False, detail=f"{version}: {output}", remedy=remedy), ()
    beside = " and the v2 tree for kill" if version == "v1" and hierarchies.v2 else ""
    guard = re.search(r"^devices: (.*)", output, re.MULTILINE)
    why = guard[1] if guard else "unknown"
    devices = "" if why == "guarded" else f"; devices are guarded by a private /dev only: {why}"
    return Finding(name=name, ok=True, detail=f"{version}{beside}{devices}"), _latency(hierarchies, output)


def _latency(hierarchies: Hierarchies, output: str) -> tuple[Finding, ...]:
    """Check the time to enter a cgroup, which may include an RCU grace period (cgroup-v2.rst)."""
    found = re.search(r"entered in (\d+) us", output)
    if found is None:
        return ()
    took_ms = int(found[1]) / 1000
    ok = took_ms < _ENTER_MS_MAX
    where = hierarchies.v2 or next(iter(hierarchies.v1.values()))
    return (
        Finding(
            name="cgroup-latency",
            ok=ok,
            detail=f"a process enters its cgroup in {took_ms:.1f} ms",
            remedy=""
            if ok
            else f"mount -o remount,favordynmods {where} (Linux 6.0 or newer; for the whole host): "
            "each launch then takes that much less time",
        ),
    )


def _namespaces(*, root: bool) -> Finding:
    if not root:
        return Finding(
            name="namespaces",
            ok=False,
            detail="need root",
            remedy="run the agent as root, or see user-namespace",
        )
    ok, output = _try("namespaces")
    return Finding(
        name="namespaces",
        ok=ok,
        detail="mount, pid, uts, ipc, cgroup; a private root" if ok else output,
        remedy="" if ok else "the agent needs CAP_SYS_ADMIN and CAP_MKNOD (in a container: --privileged)",
    )


def _user_namespace() -> Finding:
    ok, output = _try("user-namespace")
    return Finding(
        name="user-namespace",
        ok=ok,
        detail="works without root" if ok else output,
        remedy=""
        if ok
        else "sysctl user.max_user_namespaces=10000 (Debian: kernel.unprivileged_userns_clone=1; "
        "Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)",
    )


def _own_users() -> Finding:
    """Check that no account of this host uses the uids that containers get by default."""
    low, high = uid_ranges.UIDS_DEFAULT
    others = uid_ranges.conflicting_users(uid_ranges.UIDS_DEFAULT)
    try:
        claims = [f"{one.low}-{one.high} for {one.owner}" for one in uid_ranges.list_claims()]
    except HostError as error:
        claims = [error.message]
    return Finding(
        name="uids",
        ok=not others,
        detail="; ".join([f"{low}-{high}, one for each container", *claims])
        if not others
        else f"{low}-{high} are also used by others: {', '.join(others)}",
        remedy="" if not others else "galaxy agent --uids LOW-HIGH, a range that nothing else uses",
    )


def _loop(*, root: bool) -> Finding:
    if not root:
        return Finding(
            name="disk-volumes",
            ok=False,
            detail="plain directories: sizes of disk volumes are not enforced",
            remedy="run the agent as root",
        )
    ok, output = _try("loop-volume")
    remedy = (
        "apt-get install e2fsprogs"
        if "mkfs" in output
        else "modprobe loop; the agent needs /dev/loop-control"
    )
    return Finding(
        name="disk-volumes",
        ok=ok,
        detail="one ext4 loop file for each volume, its space reserved at creation" if ok else output,
        remedy="" if ok else remedy,
    )


def _seccomp() -> Finding:
    ok, output = _try("seccomp")
    return Finding(
        name="seccomp",
        ok=ok,
        detail=f"{platform.machine()} filter" if ok else output,
        remedy="" if ok else "a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    )


def _io(hierarchies: Hierarchies, *, usable: bool) -> Finding:
    schedulers = {
        device.parent.parent.name: device.read_text()
        for device in Path("/sys/block").glob("*/queue/scheduler")
    }
    weighing = sorted(name for name, text in schedulers.items() if "[bfq]" in text)
    has = "blkio" in hierarchies.v1 if hierarchies.version == "v1" else "io" in hierarchies.v2_controllers
    ok = usable and has and bool(weighing)
    if ok:
        detail = f"bfq on {', '.join(weighing)}"
    else:
        detail = (
            "no disk has the bfq scheduler: weights are set and have no effect" if has else "no io controller"
        )
    return Finding(
        name="io-weight",
        ok=ok,
        detail=detail,
        remedy="" if ok else "echo bfq > /sys/block/DISK/queue/scheduler",
    )


def _limits() -> Finding:
    """Check that an agent that is started from here can give programs the documented limits."""
    ok, output = _try("limits")
    return Finding(
        name="limits",
        ok=ok,
        detail="programs get the documented ulimits" if ok else output,
        remedy=""
        if ok
        else "start the agent with CAP_SYS_RESOURCE and CAP_SYS_NICE, or with higher limits "
        "(ulimit -H, LimitNOFILE= of systemd)",
    )


def _try(name: str) -> tuple[bool, str]:
    """Run one probe; return whether it worked, and its output."""
    # -P: the working directory may be anybody's, or another release's tree.
    command = [sys.executable, "-P", "-m", "galaxy.container.host_probes", name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            env={key: os.environ[key] for key in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if key in os.environ},
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_PROBE_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return True, done.stdout.decode(errors="replace").strip()
    output = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
    return False, output[-1] if output else f"ended with {done.returncode}"
