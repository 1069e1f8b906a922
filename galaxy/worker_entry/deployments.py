"""Deployments: request archives from the agent, and stage and place them in a child process.

There is at most one deployment per task. Temporary errors (the agent could not fetch, the child was
killed) are reported with ``retry``; the logic decides whether and when to try again.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import signal
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.worker import PackageAnswer, RequestPackage, TaskCgroup
from galaxy.model.redaction import redact
from galaxy.worker_entry.channel import close_all
from galaxy.worker_entry.event_loop import EventLoop, Timer
from galaxy.worker_entry.logic.effects import PlacePackages, StagePackages
from galaxy.worker_entry.logic.events import DeployFailed, PackagesPlaced, PackagesStaged
from galaxy.worker_entry.package_files import UnpackFailed, label, place
from galaxy.worker_entry.spawn import Spawner
from galaxy.worker_entry.unpack import stage

FETCH_S_MAX: Final = 900.0
UNPACK_S_MAX: Final = 1800.0
_RESULT_BYTES_MAX: Final = 4096

DeployEvent = PackagesStaged | PackagesPlaced | DeployFailed


class Deployments:
    """The packages being fetched, staged or placed, by task."""

    def __init__(
        self,
        loop: EventLoop,
        spawner: Spawner,
        workspace: str,
        *,
        request: Callable[[RequestPackage], None],
        on_exit: Callable[[int, Callable[[int], None]], None],
        emit: Callable[[DeployEvent], None],
    ) -> None:
        self._loop = loop
        self._spawner = spawner
        self._workspace = workspace
        self._request = request
        self._on_exit = on_exit
        self._emit = emit
        self._running: dict[str, _Deployment] = {}
        self._requested: dict[int, tuple[_Deployment, PackageSpec]] = {}
        """By number of a request that is not answered yet."""
        self._last_request = 0

    def stage(self, effect: StagePackages, cgroup: TaskCgroup) -> None:
        """Fetch packages and unpack them in the staging directory; cancels the task's last deployment."""
        self.cancel(effect.task)
        deployment = _Deployment(effect.task, effect.deploy, effect.packages, cgroup)
        self._running[effect.task] = deployment
        deployment.timer = self._loop.after(
            FETCH_S_MAX,
            lambda: self._fail(deployment, "the package did not arrive in time", retry=True, elsewhere=True),
        )
        for package in deployment.packages:
            self._last_request += 1
            self._requested[self._last_request] = deployment, package
            self._request(_request_for(self._last_request, package))

    def repeat_requests(self) -> None:
        """Repeat every open request to a newly connected agent, which has no record of them."""
        for number, (_, package) in list(self._requested.items()):
            self._request(_request_for(number, package))

    def on_answer(self, answer: PackageAnswer, files: list[int]) -> None:
        """Handle an archive, or the reason why there is none; unpack when all archives have arrived."""
        deployment, package = self._requested.pop(answer.request, (None, None))
        if deployment is None or package is None:
            close_all(files)
        elif answer.error or len(files) != 1:
            close_all(files)
            message = answer.error or "the agent sent no file"
            message = f"cannot fetch {label(package)}: {message}"
            elsewhere = answer.elsewhere or answer.retry
            self._fail(deployment, message, retry=answer.retry, elsewhere=elsewhere)
        else:
            deployment.files[package] = files[0]
            if len(deployment.files) == len(deployment.packages):
                self._unpack(deployment)

    def place(self, effect: PlacePackages, cgroup: TaskCgroup) -> None:
        """Move staged packages into place and remove those that are no longer required."""
        self.cancel(effect.task)
        deployment = _Deployment(effect.task, effect.deploy, effect.required, cgroup)
        deployment.placing = True
        self._running[effect.task] = deployment
        work = [
            (where, [package for package in effect.required if self._path(package) == where])
            for where in sorted({self._path(package) for package in (*effect.required, *effect.before)})
        ]

        def move() -> None:
            for where, required in work:
                place(effect.task, where, required)

        self._run_in_child(deployment, move, ())

    def cancel(self, task: str) -> None:
        """Abandon the deployment of ``task``; no event follows."""
        deployment = self._running.pop(task, None)
        if deployment is None:
            return
        self._drop(deployment)
        if deployment.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(deployment.pid, signal.SIGKILL)

    def pids(self, task: str) -> set[int]:
        """Return the pid of the child that unpacks or places packages of ``task``, if there is one."""
        deployment = self._running.get(task)
        return {deployment.pid} if deployment and deployment.pid else set()

    def _unpack(self, deployment: _Deployment) -> None:
        work = [
            (
                where,
                [(package, fd) for package, fd in deployment.files.items() if self._path(package) == where],
            )
            for where in sorted({self._path(package) for package in deployment.packages})
        ]

        def extract() -> None:
            for where, archives in work:
                stage(deployment.task, where, archives)

        self._run_in_child(deployment, extract, tuple(deployment.files.values()))

    def _run_in_child(
        self, deployment: _Deployment, work: Callable[[], None], files: tuple[int, ...]
    ) -> None:
        """Run ``work`` with the program's privileges; its result is returned as JSON through a pipe."""
        try:
            result, report = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._fail(deployment, f"cannot create a pipe for unpacking: {error.strerror}", retry=True)
            return

        def run() -> None:
            try:
                work()
                answer: dict[str, object] = {"ok": True}
            except UnpackFailed as error:
                answer = {"ok": False, "message": str(error)[:1000], "retry": error.retry}
            os.write(report, json.dumps(answer).encode())

        try:
            deployment.pid = self._spawner.helper(run, deployment.cgroup, (*files, report))
        except OSError as error:
            os.close(result)
            self._fail(deployment, f"cannot create a process for unpacking: {error.strerror}", retry=True)
            return
        finally:
            os.close(report)
        if deployment.timer is not None:
            deployment.timer.cancel()
        deployment.timer = self._loop.after(
            UNPACK_S_MAX, lambda: self._fail(deployment, "unpacking took too long", retry=False)
        )
        deployment.close_files()
        self._on_exit(deployment.pid, lambda status: self._on_child_ended(deployment, result, status))

    def _on_child_ended(self, deployment: _Deployment, result: int, status: int) -> None:
        with open(result, "rb", buffering=0) as file:
            os.set_blocking(result, False)
            text = file.read(_RESULT_BYTES_MAX) or b""
        deployment.pid = 0
        if self._running.get(deployment.task) is not deployment:
            return
        try:
            answer = json.loads(text)
            ok, message, retry = answer["ok"], str(answer.get("message", "")), bool(answer.get("retry"))
        except (ValueError, LookupError, TypeError, AttributeError):
            killed = os.WIFSIGNALED(status)
            how = f"killed by signal {os.WTERMSIG(status)}" if killed else f"exit status {status}"
            self._fail(deployment, f"unpacking ended early: {how} (the task's memory limit?)", retry=True)
            return
        if ok is not True:
            self._fail(deployment, message, retry=retry)
            return
        del self._running[deployment.task]
        self._drop(deployment)
        kind = PackagesPlaced if deployment.placing else PackagesStaged
        self._emit(kind(task=deployment.task, deploy=deployment.deploy))

    def _fail(self, deployment: _Deployment, message: str, *, retry: bool, elsewhere: bool = False) -> None:
        if self._running.get(deployment.task) is not deployment:
            return
        self.cancel(deployment.task)
        # A file's name may hold bytes that are not UTF-8, which no message can carry.
        message = message.encode(errors="replace").decode()
        message = redact(message, *(package.source for package in deployment.packages))
        reason = Reason(code="deploy-failed", message=message)
        self._emit(
            DeployFailed(
                task=deployment.task,
                deploy=deployment.deploy,
                reason=reason,
                retry=retry,
                elsewhere=elsewhere,
            )
        )

    def _drop(self, deployment: _Deployment) -> None:
        """Release a deployment's timer, files and open requests."""
        if deployment.timer is not None:
            deployment.timer.cancel()
        deployment.close_files()
        for number in [n for n, (owner, _) in self._requested.items() if owner is deployment]:
            del self._requested[number]

    def _path(self, package: PackageSpec) -> str:
        return posixpath.normpath(posixpath.join(self._workspace, package.path))


class _Deployment:
    """One task's deployment in progress."""

    def __init__(self, task: str, deploy: int, packages: tuple[PackageSpec, ...], cgroup: TaskCgroup) -> None:
        self.task = task
        self.deploy = deploy
        self.packages = tuple(dict.fromkeys(packages))
        self.cgroup = cgroup
        self.files: dict[PackageSpec, int] = {}
        self.pid = 0
        self.placing = False
        self.timer: Timer | None = None

    def close_files(self) -> None:
        close_all(self.files.values())
        self.files.clear()


def _request_for(number: int, package: PackageSpec) -> RequestPackage:
    return RequestPackage(
        request=number, source=package.source, version=package.version, sha256=package.sha256
    )
