"""Simulated machines: network namespaces on one switch, whose links can be cut and made slow.

    with Network() as network:
        redis, one = network.add("redis"), network.add("one")
        server = redis.popen(["redis-server", "--bind", redis.address])
        one.cut()                  # Frames are lost both ways; the link stays up, as with a failed switch.
        one.cut("out")             # It receives and cannot send; "in" is the other way round.
        one.reconnect()
        one.slow(delay_ms=200, jitter_ms=50, loss=0.01, rate_bit=1_000_000)
        one.fast()
        one.block(two)             # Only frames from one to two are lost ...
        one.unblock(two)           # ... and delivered again.
        network.partition([one], [two, redis])  # No frames between the two groups, until network.heal().

The switch is a bridge in a namespace of its own. The real host's network is not touched, and any
number of networks with the same addresses exist side by side. Namespaces have no names under
/run/netns: each is held open by a process that dies with this one, so that even a killed test leaves
nothing. ``close`` also kills whatever still runs in them. Needs root, ip and bridge (iproute2),
nsenter and unshare (util-linux).
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

COMMANDS = ("ip", "bridge", "nsenter", "unshare")
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
OFFLOADS = (0x17, 0x1F, 0x24)
"""ETHTOOL_STXCSUM, STSO, SGSO, switched off: ``slow_link.py`` carries complete frames with checksums."""
SEGMENT = "10.213.0"
UNUSED_MAC = "02:00:00:00:00:00"
"""A link address that no host has."""

_libc = ctypes.CDLL(None, use_errno=True)

Direction = Literal["both", "out", "in"]


def missing() -> str:
    """Return why networks cannot be made here; "" if they can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in COMMANDS if shutil.which(name, path=_path()) is None]
    return f"needs {', '.join(absent)}" if absent else ""


class Namespace:
    """A network namespace, held open by a process of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environ(), preexec_fn=_end_with_parent,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", f"no network namespace for {name}"
        self.pid = self._holder.pid
        self.path = Path(f"/proc/{self.pid}/ns/net")
        self._inode = os.readlink(self.path)
        self.ip("link set dev lo up")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line that executes ``arguments`` in this namespace, without a fork."""
        return ["nsenter", f"--net={self.path}", "--", *arguments]

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command in this namespace to its end; options are those of subprocess.run."""
        return subprocess.run(self.command(arguments), **({"env": _environ()} | options))

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in this namespace; the pid is the program's own. Options are those of Popen."""
        return subprocess.Popen(self.command(arguments), **({"env": _environ()} | options))

    def ip(self, *lines: str) -> None:
        """Run lines of ip(8) in this namespace."""
        self._batch("ip", lines)

    def bridge(self, *lines: str) -> None:
        """Run lines of bridge(8) in this namespace."""
        self._batch("bridge", lines)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Enter the namespace with this thread only: sockets that it creates inside stay inside."""
        with open("/proc/thread-self/ns/net") as before, open(self.path) as here:
            _setns(here.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def pids(self) -> list[int]:
        """Return the processes in this namespace, without the one that holds it open."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/net") == self._inode:
                    found.append(int(process.name))
            except OSError:
                continue
        return [pid for pid in found if pid != self.pid]

    def close(self) -> None:
        """Kill every process in the namespace, and the one that holds it open."""
        deadline = time.monotonic() + 10
        while (left := self.pids()) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)
            time.sleep(0.02)  # The end of a process that is not our child is not signalled.
        self._holder.kill()
        self._holder.communicate(timeout=10)

    def _batch(self, command: str, lines: Sequence[str]) -> None:
        done = self.run([command, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
        assert done.returncode == 0, f"{command} in {self.name}: {lines}: {done.stderr}"


class PrivateFiles:
    """The file system of a simulated host: folders that are empty there and seen nowhere else.

    A process with a mount namespace of its own holds it open, and dies with this process.
    """

    def __init__(self, namespace: Namespace, folders: Sequence[str]) -> None:
        mounts = "; ".join(f"mount -t tmpfs -o mode=1777,size=1g private {folder}" for folder in folders)
        self._namespace = namespace
        self._holder = namespace.popen(
            ["unshare", "--mount", "--propagation", "private",
             "sh", "-ec", f"{mounts}; echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=_end_with_parent,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", f"no private files for {namespace.name}"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line that executes ``arguments`` on the host with these files."""
        return self._namespace.command(
            ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *arguments]
        )

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command to its end; options are those of subprocess.run."""
        return subprocess.run(self.command(arguments), **({"env": _environ()} | options))

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process; the pid is the program's own. Options are those of Popen."""
        return subprocess.Popen(self.command(arguments), **({"env": _environ()} | options))

    def path(self, path: str) -> Path:
        """Return where this process sees ``path`` of the host."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        """Let the files go once no process of the host uses them."""
        self._holder.kill()
        self._holder.communicate(timeout=10)


class Host(Namespace):
    """A simulated machine: one address, one link to the switch."""

    def __init__(self, switch: Namespace, name: str, number: int) -> None:
        super().__init__(name)
        self.address = f"{SEGMENT}.{number}"
        self._switch = switch
        self._port = self._first_port = f"p{number}"
        self._far = f"w{number}"
        self._mac = f"02:00:00:00:00:{number:02x}"
        self._blocked: set[str] = set()
        self._emulator: subprocess.Popen[bytes] | None = None
        switch.ip(
            f"link add name {self._port} type veth peer name eth0 address {self._mac} netns {self.pid}",
            f"link set dev {self._port} master br0 up",
        )
        with self.inside():
            _no_offloads("eth0")
        self.ip(f"addr add {self.address}/24 dev eth0", "link set dev eth0 up")

    def cut(self, direction: Direction = "both") -> None:
        """Drop frames at the switch: those from this host ("out"), those to it ("in"), or both.

        The link stays up, so neither end notices.
        """
        no_input = "flood off mcast_flood off bcast_flood off" if direction != "out" else ""
        no_output = "locked on" if direction != "in" else ""
        self._switch.bridge(f"link set dev {self._port} learning off {no_output} {no_input}")
        # Learning must be off before the learned entry is deleted, or the switch learns it again. Without
        # an entry frames to this host are flooded, which "flood off" prevents.
        known = self._switch.run(["bridge", "fdb", "show", "br", "br0"], capture_output=True, text=True)
        if f"{self._mac} dev {self._port} " in known.stdout:
            self._switch.bridge(f"fdb del {self._mac} dev {self._port} master")

    def reconnect(self) -> None:
        """Undo ``cut``; a slow link stays slow."""
        self._switch.bridge(
            f"link set dev {self._port} learning on locked off flood on mcast_flood on bcast_flood on"
        )

    def block(self, *others: Host) -> None:
        """Lose frames to these hosts, by sending them to an unused address; frames from them still arrive."""
        lines = [f"neigh replace {o.address} lladdr {UNUSED_MAC} nud permanent dev eth0" for o in others]
        self.ip(*lines)
        self._blocked |= {other.address for other in others}

    def unblock(self, *others: Host) -> None:
        """Undo ``block``."""
        blocked = sorted(self._blocked & {other.address for other in others})
        self.ip(*(f"neigh del {address} dev eth0" for address in blocked))
        self._blocked -= set(blocked)

    def slow(
        self,
        *,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        loss: float = 0,
        rate_bit: float = 0,
        seed: int = 1,
    ) -> None:
        """Put ``slow_link.py`` between this host and the switch; the figures are for each direction."""
        assert self._emulator is None, f"the link of {self.name} is already slow"
        assert self._port == self._first_port
        far, near = self._far, f"{self._far}n"
        self._switch.ip(
            f"link set dev {self._first_port} nomaster",
            f"link add name {near} type veth peer name {far}",
            f"link set dev {near} up",
            f"link set dev {far} master br0 up",
        )
        self._port = far
        options = {
            "delay-ms": delay_ms,
            "jitter-ms": jitter_ms,
            "loss": loss,
            "rate-bit": rate_bit,
            "seed": seed,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        script = Path(__file__).with_name("slow_link.py")
        self._emulator = self._switch.popen(
            [sys.executable, "-I", str(script), *arguments, self._first_port, near],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=_end_with_parent,
        )  # fmt: skip
        assert self._emulator.stdout is not None
        assert self._emulator.stdout.readline() == b"ready\n", f"no slow link for {self.name}"

    def fast(self) -> None:
        """Undo ``slow`` (and ``cut``)."""
        if self._emulator is None:
            return
        self._emulator.kill()
        self._emulator.communicate(timeout=10)
        self._emulator = None
        self._switch.ip(f"link del dev {self._far}", f"link set dev {self._first_port} master br0")
        self._port = self._first_port

    def close(self) -> None:
        """Kill every process on the host, and remove the host."""
        self.fast()
        super().close()


class Network:
    """Hosts on one switch."""

    def __init__(self) -> None:
        why = missing()
        assert not why, f"no networks here: {why}"
        self.hosts: list[Host] = []
        self._switch = Namespace("switch")
        self._switch.ip("link add name br0 type bridge mcast_snooping 0", "link set dev br0 up")

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str) -> Host:
        """Connect a new host to the switch; all addresses are in the same /24."""
        self.hosts.append(Host(self._switch, name, len(self.hosts) + 1))
        return self.hosts[-1]

    def partition(self, these: Iterable[Host], those: Iterable[Host]) -> None:
        """Lose all frames between the two groups of hosts, both ways."""
        these, those = list(these), list(those)
        for host in these:
            host.block(*those)
        for host in those:
            host.block(*these)

    def heal(self) -> None:
        """Undo every ``partition`` and ``block``."""
        for host in self.hosts:
            host.unblock(*self.hosts)

    def close(self) -> None:
        """Kill all processes on the hosts, and remove the hosts and the switch."""
        for host in self.hosts:
            host.close()
        self.hosts.clear()
        self._switch.close()


def _no_offloads(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in OFFLOADS:
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0]).ljust(40, b"\0")
            fcntl.ioctl(control, SIOCETHTOOL, request)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _environ() -> dict[str, str]:
    return os.environ | {"PATH": _path()}
