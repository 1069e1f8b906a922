"""``galaxy exec``: run a command inside a pod, optionally on this terminal."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from galaxy.cli.lazy import Action
from galaxy.cli.options import Target, cluster_options, complete, pod_names
from galaxy.cli.output import print_err
from galaxy.cli.streams import is_abandoned, read_input
from galaxy.errors import GalaxyError, UsageError

if TYPE_CHECKING:
    from galaxy.client.streams import ExecStream

BLOCK_BYTES = 16 * 1024
UNREAD_BYTES_MAX = 64 * 1024
"""Output that is dropped after its reader has gone, before the command is ended."""
PIPE_STATUS = 128 + signal.SIGPIPE


@click.command(
    "exec",
    cls=Action,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples="""\
  galaxy exec -it web -- sh          open a shell in the first running pod of a job
  galaxy exec web-3f9a2c.1 -- ps ax  run a command in one pod, and exit with its code
  galaxy exec -i web -- tee f < f    pass standard input on
  galaxy exec -d web -- make clean   start a command and do not wait for it
""",
)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input to the command.")
@click.option("-t", "--tty", is_flag=True, help="Give the command this terminal.")
@click.option("-d", "--detach", is_flag=True, help="Start the command and leave; its output is dropped.")
@click.option("--task", default="", metavar="TASK", help="Join the environment and limits of this task.")
@cluster_options
@click.argument("name", metavar="JOB|POD", shell_complete=complete(pod_names))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    target: Target, name: str, command: tuple[str, ...], interactive: bool, tty: bool, detach: bool, task: str
) -> int:
    """Run a command inside a pod, and exit with its exit code.

    The command ends when this one does, whatever ends it, unless it is detached.
    """
    argv = command[1:] if command[0] == "--" else command
    if command[0] != "--" and command[0].startswith("-"):
        given = " ".join(command[:1])
        raise UsageError(
            f"{given} comes after {name}, where the command is expected",
            hint=f"put options before the pod: galaxy exec {given} ... {name} -- COMMAND",
        )
    if not argv:
        raise UsageError("no command to run", hint=f"galaxy exec {name} -- sh -c 'ls'")
    if tty and not sys.stdin.isatty():
        raise UsageError("--tty needs a terminal, and standard input is not one", hint="leave out -t")
    if detach and (tty or interactive):
        raise UsageError("--detach cannot be combined with --interactive or --tty: nobody would be there")
    size = shutil.get_terminal_size()
    with (
        target.open_to_change(quiet=not tty) as galaxy,
        galaxy.open_exec(
            name, argv, task=task, tty=tty, rows=size.lines, columns=size.columns, detach=detach
        ) as stream,
    ):
        return _connect(stream, interactive=interactive or tty, tty=tty)


def _connect(stream: ExecStream, *, interactive: bool, tty: bool) -> int:
    """Copy input and output until the command has ended; return its exit status.

    A command that keeps writing although nobody reads its output is ended, as SIGPIPE would end it.
    """
    unread_bytes = 0
    with raw_terminal(on=tty), resizing(stream, on=tty), suspending(stream):
        if interactive:
            threading.Thread(target=_copy_input, args=(stream,), name="stdin", daemon=True).start()
        else:
            stream.end_input()
        for frame in stream:
            if frame.head.kind == "exit":
                return frame.head.status
            out = sys.stderr if frame.head.kind == "stderr" else sys.stdout
            if is_abandoned(out):
                unread_bytes += len(frame.data)
                if unread_bytes > UNREAD_BYTES_MAX:
                    return PIPE_STATUS
                continue
            out.buffer.write(frame.data)
            out.buffer.flush()
    raise AssertionError("a stream ends with an exit frame or raises")


def _copy_input(stream: ExecStream) -> None:
    with contextlib.suppress(GalaxyError):  # The command may end without reading it all.
        try:
            while data := read_input(BLOCK_BYTES):
                stream.write(data)
        except GalaxyError as error:
            print_err(f"galaxy: {error}")
        stream.end_input()


@contextlib.contextmanager
def raw_terminal(*, on: bool) -> Iterator[None]:
    """Pass every key to the command, including Ctrl-C; restore the terminal afterwards."""
    if not on:
        yield
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def suspending(stream: ExecStream) -> Iterator[None]:
    """Say that this process is suspended before SIGTSTP (Ctrl-Z) stops it, so that the command waits.

    The handler only wakes a thread: it may have interrupted a request to Redis.
    """
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:  # Ignored: no job control.
        yield
        return
    asked = threading.Event()
    ended = threading.Event()

    def stop_when_asked() -> None:
        while asked.wait() and not ended.is_set():
            asked.clear()
            stream.suspend()
            # To this thread: a signal to the process may be delivered after the next line.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            stream.resume()

    before = signal.signal(signal.SIGTSTP, lambda *_: asked.set())
    threading.Thread(target=stop_when_asked, name="suspend", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
        ended.set()
        asked.set()


@contextlib.contextmanager
def resizing(stream: ExecStream, *, on: bool) -> Iterator[None]:
    """Send the command each new size of this terminal, from a thread because sending may block."""
    if not on:
        yield
        return
    changed = threading.Event()
    ended = threading.Event()

    def send_sizes() -> None:
        while True:
            changed.wait()
            changed.clear()
            if ended.is_set():
                return
            size = shutil.get_terminal_size()
            with contextlib.suppress(GalaxyError):
                stream.resize(size.lines, size.columns)

    before = signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=send_sizes, name="resize", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        ended.set()
        changed.set()
