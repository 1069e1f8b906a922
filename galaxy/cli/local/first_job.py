"""``galaxy up --run FILE``: run a job on the cluster that has just started, and show that it answers."""

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

from galaxy.cli.job.cron import crontab_line, in_folder
from galaxy.cli.local.display import print_line
from galaxy.client import Galaxy
from galaxy.client.cluster_file import ClusterFile
from galaxy.client.source.job_file import load
from galaxy.errors import GalaxyError, NotFound
from galaxy.model.api.views import EndpointView

ANSWER_BYTES_MAX: Final = 2000
FETCH_S: Final = 5.0


class FirstJob:
    """One job file to run on one cluster."""

    def __init__(self, cluster: ClusterFile, path: Path, console: Console, cron: Path | None = None) -> None:
        """Read the job file, and that of the batch job whose crontab line is to be printed.

        Raises:
            SpecError: a file is wrong.
        """
        self._crontab = crontab_line(cron, in_folder(cluster.dir)) if cron else ""
        self._cluster = cluster
        self._path = path
        self._console = console
        self._name = load(str(path)).name

    def run(self) -> None:
        """Run the job, or update a job of that name; print its endpoints, an answer, and next commands.

        Raises:
            GalaxyError: it does not run.
        """
        verb = "update" if self._exists() else "run"
        command = [sys.executable, "-P", "-m", "galaxy.cli.main", "job", verb, str(self._path)]
        done = subprocess.run(
            command,
            env={**os.environ, "GALAXY_DIR": self._cluster.dir, "GALAXY_REDIS": "", "GALAXY_REDIS_FILE": ""},
            check=False,
        )
        if done.returncode:
            raise GalaxyError(f'job "{self._name}" does not run yet', hint=f"galaxy job show {self._name}")
        self._print_summary()

    def _exists(self) -> bool:
        with Galaxy(dir=self._cluster.dir) as galaxy:
            try:
                return galaxy.job(self._name).summary.state not in ("removed", "finished")
            except NotFound:
                return False

    def _print_summary(self) -> None:
        with Galaxy(dir=self._cluster.dir) as galaxy:
            endpoints = list(galaxy.discover(self._name))
        lines = [""]
        lines += [f"{e.pod:<18} http://{e.address}:{e.port}/  {e.state}" for e in endpoints]
        if endpoints:
            lines.append(f"{'it answers':<18} {fetch(endpoints)}")
        if self._cluster.flower:
            lines.append(f"{'Flower':<18} {self._cluster.flower}")
        galaxy_command = _galaxy_command()
        lines += ["", "try next:"]
        lines += [
            f"  {galaxy_command} {arguments}"
            for arguments in (f"job show {self._name}", f"logs -f {self._name}", f"job update {self._path}")
        ]
        if self._crontab:
            lines += ["", "from cron, as a line of `crontab -e`:", f"  {self._crontab}"]
        for line in lines:
            print_line(self._console, line)


def fetch(endpoints: Sequence[EndpointView]) -> str:
    """Return the HTTP answer of the first endpoint that answers, or the last error."""
    problem = ""
    for endpoint in endpoints:
        url = f"http://{endpoint.address}:{endpoint.port}/"
        try:
            with urllib.request.urlopen(url, timeout=FETCH_S) as answer:  # always http
                return str(answer.read(ANSWER_BYTES_MAX).decode(errors="replace").strip())
        except OSError as error:
            problem = f"not over http: {error}"
    return problem


def _galaxy_command() -> str:
    """Return how to call this installation's ``galaxy`` from the user's shell."""
    own = Path(sys.executable).parent / "galaxy"
    on_path = shutil.which("galaxy")
    if on_path and Path(on_path).resolve() == own.resolve():
        return "galaxy"
    if not own.exists():
        return "galaxy"
    relative = os.path.relpath(own)
    return relative if not relative.startswith("../..") else str(own)
