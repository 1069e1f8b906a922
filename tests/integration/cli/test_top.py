"""The live table of ``galaxy top`` on a real terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

PROGRAM = """
from galaxy.cli.usage.live import Frame, show_live
from galaxy.errors import Unreachable

asked = []

def ask(order, room):
    asked.append(order)
    if len(asked) == 3:
        raise Unreachable("Redis at 10.0.0.1 does not answer")
    titles = ["POD", "AGENT", "CPU", "ASKED", "%", "MEMORY", "ASKED", "%"]
    row = ["frontend-3f9a2c.{}", "h1", "0.5", "1", "50", "100 MiB", "200 MiB", "50"]
    return Frame(titles, [[row[0].format(n), *row[1:]] for n in range(room)], 500)

show_live("galaxy top pods", ask, "cpu", 30.0)
print("asked", asked)
"""


class Terminal:
    """A program on a pseudo-terminal of 24 lines and 80 columns."""

    def __init__(self, program: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.text = ""
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        environment = {name: value for name, value in environment.items() if value}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=slave, stdout=slave, stderr=slave, env=environment
        )

    def read_until(self, wanted: str, within_s: float = 30.0) -> None:
        """Read what is printed until it contains ``wanted`` after what was read before."""
        end_s, start = time.monotonic() + within_s, len(self.text)
        while not re.search(wanted, self.text[start:]):
            assert time.monotonic() < end_s, self.text[start:]
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_keys_sort_and_end_a_table_that_fits_and_outlives_an_unreachable_cluster() -> None:
    terminal = Terminal(PROGRAM)
    try:
        terminal.read_until(r"21 of 500 by cpu[\s\S]*frontend-3f9a2c\.20")
        terminal.press("m")
        terminal.read_until(r"by memory[\s\S]*frontend-3f9a2c\.20")
        terminal.press(" ")
        terminal.read_until(r"Redis at 10\.0\.0\.1 does not answer; still trying[\s\S]*frontend-3f9a2c\.20")
        terminal.press("q")
        terminal.read_until(r"asked \['cpu', 'memory', 'memory'\]")
        assert terminal.process.wait(10) == 0
        assert termios.tcgetattr(terminal.slave)[3] == terminal.before[3], "the terminal is as it was"
        lines = re.split(r"\x1b\[H|\x1b\[\?1049l|\n", terminal.text)  # Frames begin at the top.
        widths = [len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line)) for line in lines]
        assert 70 < max(widths) <= 80
    finally:
        terminal.close()
