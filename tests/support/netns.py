"""Machines in small: network namespaces on one switch, whose links can be cut and made slow.

    with Network() as network:
        redis, one = network.add("redis"), network.add("one")
        server = redis.popen(["redis-server", "--bind", redis.address])
        one.cut()              # Frames vanish, both ways; nobody is told, as with a dead switch.
        one.cut("out")         # It hears and cannot speak; "in" is the other way round.
        one.slow(delay_ms=200, jitter_ms=50, loss=0.01, rate_bit=1_000_000)
        one.join(), one.fast()
    one.lose(two), one.find(two)      # Of all frames only its own to that one vanish.
    network.part([one], [two, redis]) # None between these and those, until network.heal().

The switch is a bridge in a namespace of its own, so the real host's network is not touched, and any
number of networks with the same addresses live side by side. Namespaces have no names under
/run/netns: each is held by a process that dies with us, so nothing is left even of a killed test.
``close`` also kills whatever still runs in them. Needs root, ip and bridge (iproute2), nsenter and
unshare (util-linux).
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
"""ETHTOOL_STXCSUM, STSO, SGSO: a wire of ours carries whole frames with sums in them."""
SEGMENT = "10.213.0"
NOBODY = "02:00:00:00:00:00"
"""A link address that no host has."""

_libc = ctypes.CDLL(None, use_errno=True)

Way = Literal["both", "out", "in"]


def missing() -> str:
    """Return why there can be no networks here; "" if they can be."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in COMMANDS if shutil.which(name, path=_path()) is None]
    return f"needs {', '.join(absent)}" if absent else ""


class Namespace:
    """A network namespace, held by a process of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environ(), preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", f"no network namespace for {name}"
        self.pid = self._holder.pid
        self.path = Path(f"/proc/{self.pid}/ns/net")
        self._inode = os.readlink(self.path)
        self.ip("link set dev lo up")

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs ``words`` in here, as the same process."""
        return ["nsenter", f"--net={self.path}", "--", *words]

    def run(self, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command in here to its end; options are those of subprocess.run."""
        return subprocess.run(self.command(words), **({"env": _environ()} | options))

    def popen(self, words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in here; its pid is the program's own. Options are those of Popen."""
        return subprocess.Popen(self.command(words), **({"env": _environ()} | options))

    def ip(self, *lines: str) -> None:
        """Run lines of ip(8) in here."""
        self._batch("ip", lines)

    def bridge(self, *lines: str) -> None:
        """Run lines of bridge(8) in here."""
        self._batch("bridge", lines)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be in here, this thread alone: sockets that are made now stay in here when it has left."""
        with open("/proc/thread-self/ns/net") as before, open(self.path) as here:
            _setns(here.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def pids(self) -> list[int]:
        """Return the processes that are in here, but the one that holds it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/net") == self._inode:
                    found.append(int(process.name))
            except OSError:
                continue
        return [pid for pid in found if pid != self.pid]

    def close(self) -> None:
        """Kill all that is in here, and the namespace with it."""
        deadline = time.monotonic() + 10
        while (left := self.pids()) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)
            time.sleep(0.02)  # Nobody tells of the end of processes that are not ours.
        self._holder.kill()
        self._holder.communicate(timeout=10)

    def _batch(self, command: str, lines: Sequence[str]) -> None:
        done = self.run([command, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
        assert done.returncode == 0, f"{command} in {self.name}: {lines}: {done.stderr}"


class Host(Namespace):
    """A machine: one address, one link to the switch."""

    def __init__(self, switch: Namespace, name: str, number: int) -> None:
        super().__init__(name)
        self.address = f"{SEGMENT}.{number}"
        self._switch = switch
        self._port = self._plug = f"p{number}"
        self._far = f"w{number}"
        self._mac = f"02:00:00:00:00:{number:02x}"
        self._lost: set[str] = set()
        self._wire: subprocess.Popen[bytes] | None = None
        switch.ip(
            f"link add name {self._port} type veth peer name eth0 address {self._mac} netns {self.pid}",
            f"link set dev {self._port} master br0 up",
        )
        with self.inside():
            _no_offloads("eth0")
        self.ip(f"addr add {self.address}/24 dev eth0", "link set dev eth0 up")

    def cut(self, way: Way = "both") -> None:
        """Let frames vanish at the switch: its own ("out"), those to it ("in"), or both.

        The link stays up, so nothing here or there is told.
        """
        deaf = "flood off mcast_flood off bcast_flood off" if way != "out" else ""
        mute = "locked on" if way != "in" else ""
        self._switch.bridge(f"link set dev {self._port} learning off {mute} {deaf}")
        # What the switch has learned goes after it learns no more: from now on it floods, or not.
        known = self._switch.run(["bridge", "fdb", "show", "br", "br0"], capture_output=True, text=True)
        if f"{self._mac} dev {self._port} " in known.stdout:
            self._switch.bridge(f"fdb del {self._mac} dev {self._port} master")

    def join(self) -> None:
        """Undo ``cut``; a link made slow stays slow."""
        self._switch.bridge(
            f"link set dev {self._port} learning on locked off flood on mcast_flood on bcast_flood on"
        )

    def lose(self, *others: Host) -> None:
        """Send what is for these hosts to a link address that nobody has; what they send still comes."""
        lines = [f"neigh replace {o.address} lladdr {NOBODY} nud permanent dev eth0" for o in others]
        self.ip(*lines)
        self._lost |= {other.address for other in others}

    def find(self, *others: Host) -> None:
        """Undo ``lose``."""
        found = sorted(self._lost & {other.address for other in others})
        self.ip(*(f"neigh del {address} dev eth0" for address in found))
        self._lost -= set(found)

    def slow(
        self,
        *,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        loss: float = 0,
        rate_bit: float = 0,
        seed: int = 1,
    ) -> None:
        """Put a long wire (``wire.py``) between this host and the switch; figures are for each direction."""
        assert self._wire is None, f"the link of {self.name} is slow already"
        assert self._port == self._plug
        far, near = self._far, f"{self._far}n"
        self._switch.ip(
            f"link set dev {self._plug} nomaster",
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
        words = [f"--{name}={value}" for name, value in options.items()]
        script = Path(__file__).with_name("wire.py")
        self._wire = self._switch.popen(
            [sys.executable, "-I", str(script), *words, self._plug, near],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert self._wire.stdout is not None
        assert self._wire.stdout.readline() == b"ready\n", f"no wire for {self.name}"

    def fast(self) -> None:
        """Undo ``slow`` (and ``cut``)."""
        if self._wire is None:
            return
        self._wire.kill()
        self._wire.communicate(timeout=10)
        self._wire = None
        self._switch.ip(f"link del dev {self._far}", f"link set dev {self._plug} master br0")
        self._port = self._plug

    def close(self) -> None:
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
        """Plug a new host in; its address is in the same /24 as all others'."""
        self.hosts.append(Host(self._switch, name, len(self.hosts) + 1))
        return self.hosts[-1]

    def part(self, these: Iterable[Host], those: Iterable[Host]) -> None:
        """Let all frames between these and those vanish, both ways."""
        these, those = list(these), list(those)
        for host in these:
            host.lose(*those)
        for host in those:
            host.lose(*these)

    def heal(self) -> None:
        """Undo every ``part`` and ``lose``."""
        for host in self.hosts:
            host.find(*self.hosts)

    def close(self) -> None:
        """Kill all that runs on the hosts, then the hosts and the switch."""
        for host in self.hosts:
            host.close()
        self.hosts.clear()
        self._switch.close()


def _no_offloads(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for command in OFFLOADS:
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0]).ljust(40, b"\0")
            fcntl.ioctl(asking, SIOCETHTOOL, request)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _die_with_parent() -> None:
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
