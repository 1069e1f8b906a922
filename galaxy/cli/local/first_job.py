"""``galaxy up --run FILE``: run a job on the cluster that has just come up, and show that it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from galaxy.client import Galaxy
from galaxy.client.cluster_file import ClusterFile
from galaxy.client.source.job_file import load
from galaxy.errors import GalaxyError, NotFound
from galaxy.model.api.views import EndpointView

ANSWER_BYTES_MAX: Final = 2000
FETCH_S: Final = 5.0


class FirstJob:
    """One job file on one cluster."""

    def __init__(self, cluster: ClusterFile, path: Path, console: Console) -> None:
        self._cluster = cluster
        self._path = path
        self._console = console
        self._name = load(str(path)).name

    def run(self) -> None:
        """Run the job, or update the one of its name; say where it answers, and what to try next.

        Raises:
            GalaxyError: it could not be run.
        """
        verb = "update" if self._is_there() else "run"
        command = [sys.executable, "-P", "-m", "galaxy.cli.main", "job", verb, str(self._path)]
        done = subprocess.run(
            command,
            env={**os.environ, "GALAXY_DIR": self._cluster.dir, "GALAXY_REDIS": ""},
            check=False,
        )
        if done.returncode:
            raise GalaxyError(f'job "{self._name}" does not run yet', hint=f"galaxy job show {self._name}")
        self._tell()

    def _is_there(self) -> bool:
        with Galaxy(dir=self._cluster.dir) as galaxy:
            try:
                return galaxy.job(self._name).summary.state not in ("removed", "finished")
            except NotFound:
                return False

    def _tell(self) -> None:
        with Galaxy(dir=self._cluster.dir) as galaxy:
            endpoints = list(galaxy.discover(self._name))
        self._say("")
        for endpoint in endpoints:
            self._say(f"{endpoint.pod:<18} http://{endpoint.address}:{endpoint.port}/  {endpoint.state}")
        if endpoints:
            self._say(f"{'it answers':<18} {fetch(endpoints)}")
        if self._cluster.flower:
            self._say(f"{'Flower':<18} {self._cluster.flower}")
        galaxy_command = _galaxy()
        self._say("", "try next:")
        for words in (f"job show {self._name}", f"logs -f {self._name}", f"job update {self._path}"):
            self._say(f"  {galaxy_command} {words}")

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def fetch(endpoints: Sequence[EndpointView]) -> str:
    """Return what the first of ``endpoints`` that answers says; all of them, what is wrong."""
    wrong = ""
    for endpoint in endpoints:
        url = f"http://{endpoint.address}:{endpoint.port}/"
        try:
            with urllib.request.urlopen(url, timeout=FETCH_S) as answer:  # http, made here
                return str(answer.read(ANSWER_BYTES_MAX).decode(errors="replace").strip())
        except OSError as error:
            wrong = f"not over http: {error}"
    return wrong


def _galaxy() -> str:
    """Return how this very ``galaxy`` is called from this shell."""
    own = Path(sys.executable).parent / "galaxy"
    found = shutil.which("galaxy")
    if found and Path(found).resolve() == own.resolve():
        return "galaxy"
    if not own.exists():
        return "galaxy"
    relative = os.path.relpath(own)
    return relative if not relative.startswith("../..") else str(own)
