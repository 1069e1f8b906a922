"""Passwords on the command line: taken out of what other users of this host can see (/proc/PID/cmdline).

The command is executed again in the same process, with the passwords replaced in its arguments, and
the real arguments in its environment, which only its owner can read. They are not passed on.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

from galaxy.cli import streams

VARIABLE: Final = "GALAXY_HIDDEN_ARGUMENTS"
OPTIONS: Final = ("--redis", "--at")
"""Options whose value is a URL."""
HIDDEN: Final = "***"
_PASSWORDS: Final = re.compile(r"(?<=://)[^/]*?[:@].*(?=@)|(?<=[?&]sentinel_password=)[^&]+")


def hide() -> None:
    """Hide the passwords in this process' arguments; afterwards ``sys.argv`` has the real ones.

    A warning says how to keep them off the command line: until this runs, other users can read them.
    """
    real = os.environ.pop(VARIABLE, "")
    if real:
        sys.argv[1:] = json.loads(real)
        return
    arguments = sys.argv[1:]
    shown = without_passwords(arguments)
    if shown == arguments:
        return
    sys.stderr.write(
        "galaxy: warning: a password on the command line can be read by every user of this host for a"
        " moment\n  try: --redis-file FILE, or GALAXY_REDIS in the environment\n"
    )
    sys.stderr.flush()
    os.environ[VARIABLE] = json.dumps(arguments)
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]
    streams.execute_again([*before, *shown])


def without_passwords(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with the passwords in its URLs replaced."""
    shown: list[str] = []
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if number and arguments[number - 1] in OPTIONS:
            shown.append(_PASSWORDS.sub(HIDDEN, argument))
        elif equals and name in OPTIONS:
            shown.append(f"{name}={_PASSWORDS.sub(HIDDEN, value)}")
        else:
            shown.append(argument)
    return shown
