"""``python -m galaxy.container.host_probes NAME``: try one kernel feature in a separate process.

Exits with 0 if it works, otherwise with 1 and the kernel's error on stdout.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Final

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.fs import rootfs
from galaxy.container.fs.volumes import mkfs_tool, mount_tmpfs, mount_volume
from galaxy.container.kernel import inherited, prctl, seccomp, syscalls
from galaxy.container.launcher.userns import fork_userns
from galaxy.container.limits import limits_of
from galaxy.errors import GalaxyError, HostError
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.units import MIB


def namespaces() -> None:
    """Create all namespaces as root, with a new ``/proc`` and a new root."""
    pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = syscalls.fork_into_pid_namespace(pid_namespace)
    if pid == 0:
        _exit_after(lambda: _new_root(privileged=True))
    _wait_for(pid)


def user_namespace() -> None:
    """Create all namespaces without root."""
    prctl.become_subreaper()
    pid = fork_userns(private_network=False)
    if pid == 0:
        _exit_after(lambda: _new_root(privileged=False))
    _wait_for(pid)


def cgroups() -> None:
    """Create a cgroup with limits in every hierarchy, enter it and remove it."""
    tree = CgroupTree.of_host(f"galaxy-probe-{os.getpid()}")
    limits = limits_of(
        Demand(
            tasks=(TaskDemand(name="probe", cpu_milli=100, memory_bytes=16 * MIB, pids_max=16),),
            workspace=VolumeDemand(path="/probe", size_bytes=MIB),
        )
    )
    try:
        tree.prepare()
        tree.make("probe_1", limits)
        opened = tree.open("probe_1", limits)
        pid = os.fork()
        if pid == 0:
            _exit_after(lambda: _enter(opened.init))
        _wait_for(pid)
        tree.usage("probe_1")
        print(f"devices: {tree.devices_refused or 'guarded'}", flush=True)
    finally:
        tree.remove("probe_1")
        tree.remove_root()


def loop_volume() -> None:
    """Create a disk volume of enforced size: mkfs.ext4, a loop device, a mount."""
    if mkfs_tool() is None:
        raise HostError("mkfs.ext4 is not installed")
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    with tempfile.TemporaryDirectory(prefix="galaxy-probe-") as folder:
        target = f"{folder}/mnt"
        os.mkdir(target)
        volume = VolumeDemand(path="/probe", size_bytes=4 * MIB)
        mount_volume(volume, target, directory=folder, templates=f"{folder}/t", index=0, uid=0, gid=0)
        syscalls.unmount(target, 0)


def seccomp_filter() -> None:
    """Install the filter that programs get."""
    program = seccomp.program()
    if not program:
        raise HostError("there is no filter for this machine architecture")
    prctl.set_no_new_privileges()
    prctl.SeccompFilter(program).install()


def limits() -> None:
    """Raise the limits of this process as an agent does, and tell which stay below the documented ones."""
    inherited.reset()
    low = [
        f"{name} {_amount(most)} (documented: {_amount(documented)})"
        for name, (documented, most) in inherited.shortfalls().items()
    ]
    if nice := os.getpriority(os.PRIO_PROCESS, 0):
        low.append(f"nice {nice} (documented: 0)")
    if low:
        raise HostError(f"programs get no more than {', '.join(low)}")


def _amount(value: int) -> str:
    return "unlimited" if value == inherited.UNLIMITED else str(value)


PROBES: Final[dict[str, Callable[[], None]]] = {
    "namespaces": namespaces,
    "user-namespace": user_namespace,
    "cgroups": cgroups,
    "loop-volume": loop_volume,
    "seccomp": seccomp_filter,
    "limits": limits,
}


def _enter(procs: tuple[int, ...]) -> None:
    """Enter cgroups and print how long the first took: it may wait for an RCU grace period."""
    started = time.monotonic_ns()
    os.write(procs[0], b"0")
    print(f"entered in {(time.monotonic_ns() - started) // 1000} us", flush=True)
    for fd in procs[1:]:
        os.write(fd, b"0")


def _new_root(*, privileged: bool) -> None:
    syscalls.unshare(
        syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWCGROUP
    )
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = "/tmp"  # noqa: S108 - any directory serves: only this mount namespace sees the mount
    rootfs.build(root, rootfs.RootLayout(mountpoints=("/probe",)), privileged=privileged)
    rootfs.mount_own(root)
    mount_tmpfs(f"{root}/probe", MIB, mode=0o755)
    syscalls.pivot_root(root)


def _exit_after(work: Callable[[], None]) -> None:
    """Run ``work`` and exit: with 0, or with 1 after printing its error."""
    code = 1
    try:
        work()
        code = 0
    except (OSError, GalaxyError) as error:
        os.write(1, str(error).encode())
    finally:
        os._exit(code)


def _wait_for(pid: int) -> None:
    """Reap a child; exit with 1 if it failed."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        sys.exit(1)


def main() -> int:
    """Run the probe that the first argument names."""
    try:
        PROBES[sys.argv[1]]()
    except (OSError, GalaxyError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
