"""The environment variables that Galaxy knows. A name that it does not know is probably a mistake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

PREFIX: Final = "GALAXY_"
SETTINGS: Final[Mapping[str, str]] = {
    "GALAXY_REDIS": "URL of the cluster's Redis",
    "GALAXY_REDIS_FILE": "file with that URL",
    "GALAXY_DIR": "folder of a cluster on this host",
    "GALAXY_TOKEN": "token that signs requests, instead of that of the context",
    "GALAXY_REDIS_CA": "certificate authority for TLS to Redis",
    "GALAXY_REDIS_CERT": "client certificate for TLS to Redis",
    "GALAXY_REDIS_KEY": "key of the client certificate",
    "GALAXY_SENTINEL_PASSWORD": "password of the Sentinels",
    "GALAXY_LOG_LEVEL": "lowest level that Galaxy's processes log",
    "GALAXY_REQUIRE": "limits that an agent must enforce, for ResMan",
    "GALAXY_REQUIRE_USERS": "refuse unsigned requests, for AppMaster",
    "GALAXY_FIRST_OPERATOR": "the first operator, for AppMaster",
    "GALAXY_PACKAGE_MAX": "largest package that the cluster stores",
    "GALAXY_PACKAGES_MAX": "most that all stored packages take",
    "GALAXY_DEBUG": "1 shows the traceback of an error",
}
"""Variables that commands and processes read, with their meaning."""
OF_PROGRAMS: Final = (
    "GALAXY_HOST", "GALAXY_JOB_ID", "GALAXY_POD_ID", "GALAXY_POD_INDEX", "GALAXY_TASK_ID", "GALAXY_WORKSPACE",
)  # fmt: skip
"""Variables that AppWorker sets for programs, which may call ``galaxy`` themselves."""
OTHERS: Final = ("GALAXY_SEEDS", "GALAXY_VENV", "GALAXY_PYTHON", "GALAXY_HIDDEN_ARGUMENTS")
"""Variables of the simulator and of the scripts in deploy/, and one of ``cli.hidden_arguments``."""
PREFIXES: Final = ("GALAXY_PORT_", "GALAXY_TEST_", "GALAXY_V2_")
"""Ports of programs, and settings of the tests."""


def warnings(environ: Iterable[str]) -> list[str]:
    """Return a line about each variable whose name starts with GALAXY_ and that Galaxy does not know."""
    known = {*SETTINGS, *OF_PROGRAMS, *OTHERS}
    unknown = sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known and not name.startswith(PREFIXES)
    )
    if not unknown:
        return []
    from galaxy.suggest import nearest  # difflib is needed only after a mistake.

    # Without the prefix, which would make all of them similar.
    rests = [name.removeprefix(PREFIX) for name in SETTINGS]
    guesses = [nearest(name.removeprefix(PREFIX), rests) for name in unknown]
    return [
        f"{name} is set, and Galaxy knows no such variable"
        + (f"; did you mean {PREFIX}{guess}?" if guess else "")
        for name, guess in zip(unknown, guesses, strict=True)
    ]
