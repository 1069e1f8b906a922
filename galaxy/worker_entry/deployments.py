"""Deployments: ask the agent for archives, have a child unpack and place them, one task at a time.

Errors that may pass (the agent could not fetch, the child was killed) are reported as such;
how often and when to try again is for the logic to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.worker import PackageAnswer, RequestPackage, TaskCgroup
from galaxy.worker_entry import unpack
from galaxy.worker_entry.event_loop import Loop, Timer
from galaxy.worker_entry.logic.effects import PlacePackages, StagePackages
from galaxy.worker_entry.logic.events import DeployFailed, PackagesPlaced, PackagesStaged
from galaxy.worker_entry.spawn import Spawner

FETCH_S_MAX: Final = 900.0
UNPACK_S_MAX: Final = 1800.0
_RESULT_BYTES_MAX: Final = 4096

Outcome = PackagesStaged | PackagesPlaced | DeployFailed


class Deployments:
    """What is being fetched, unpacked or placed, by task."""

    def __init__(
        self,
        loop: Loop,
        spawner: Spawner,
        workspace: str,
        *,
        ask: Callable[[RequestPackage], None],
        watch: Callable[[int, Callable[[int], None]], None],
        done: Callable[[Outcome], None],
    ) -> None:
        self._loop = loop
        self._spawner = spawner
        self._workspace = workspace
        self._ask = ask
        self._watch = watch
        self._done = done
        self._running: dict[str, _Deployment] = {}
        self._wanted: dict[int, tuple[_Deployment, PackageSpec]] = {}
        self._requests = 0

    def stage(self, effect: StagePackages, cgroup: TaskCgroup) -> None:
        """Fetch and unpack aside; an earlier deployment of the task is over."""
        self.cancel(effect.task)
        deployment = _Deployment(effect.task, effect.deploy, effect.packages, cgroup)
        self._running[effect.task] = deployment
        deployment.timer = self._loop.after(
            FETCH_S_MAX, lambda: self._fail(deployment, "the package did not arrive in time", retry=True)
        )
        for package in deployment.packages:
            self._requests += 1
            self._wanted[self._requests] = deployment, package
            self._ask(_want(self._requests, package))

    def ask_again(self) -> None:
        """Repeat every open question: a new agent knows nothing of the old one's."""
        for request, (_, package) in list(self._wanted.items()):
            self._ask(_want(request, package))

    def arrived(self, answer: PackageAnswer, files: list[int]) -> None:
        """Take an archive, or word that there is none."""
        deployment, package = self._wanted.pop(answer.request, (None, None))
        if deployment is None or package is None:
            _close(files)
        elif answer.error or len(files) != 1:
            _close(files)
            message = answer.error or "the agent sent no file"
            self._fail(deployment, f"cannot fetch {unpack.label(package)}: {message}", retry=answer.retry)
        else:
            deployment.files[package] = files[0]
            if len(deployment.files) == len(deployment.packages):
                self._unpack(deployment)

    def place(self, effect: PlacePackages, cgroup: TaskCgroup) -> None:
        """Move what was staged in place, and withdraw what is not wanted any more."""
        self.cancel(effect.task)
        deployment = _Deployment(effect.task, effect.deploy, effect.required, cgroup)
        deployment.placing = True
        self._running[effect.task] = deployment
        work = [
            (where, [package for package in effect.required if self._path(package) == where])
            for where in sorted({self._path(package) for package in (*effect.required, *effect.before)})
        ]

        def move() -> None:
            for where, wanted in work:
                unpack.place(effect.task, where, wanted)

        self._in_child(deployment, move, ())

    def cancel(self, task: str) -> None:
        """End what goes on for ``task``, silently."""
        deployment = self._running.pop(task, None)
        if deployment is None:
            return
        self._forget(deployment)
        if deployment.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(deployment.pid, 9)

    def pids(self, task: str) -> set[int]:
        """Return the child that works for ``task``, if there is one."""
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
                unpack.stage(deployment.task, where, archives)

        self._in_child(deployment, extract, tuple(deployment.files.values()))

    def _in_child(self, deployment: _Deployment, work: Callable[[], None], files: tuple[int, ...]) -> None:
        result, report = os.pipe2(os.O_CLOEXEC)

        def run() -> None:
            try:
                work()
                answer: dict[str, object] = {"ok": True}
            except unpack.Failed as error:
                answer = {"ok": False, "message": str(error)[:1000], "retry": error.retry}
            os.write(report, json.dumps(answer).encode())

        try:
            deployment.pid = self._spawner.helper(run, deployment.cgroup, (*files, report))
        except OSError as error:
            os.close(result)
            self._fail(deployment, f"no process for unpacking: {error.strerror}", retry=True)
            return
        finally:
            os.close(report)
        if deployment.timer is not None:
            deployment.timer.cancel()
        deployment.timer = self._loop.after(
            UNPACK_S_MAX, lambda: self._fail(deployment, "unpacking took too long", retry=False)
        )
        deployment.close_files()
        self._watch(deployment.pid, lambda status: self._ended(deployment, result, status))

    def _ended(self, deployment: _Deployment, result: int, status: int) -> None:
        with open(result, "rb", buffering=0) as file:
            os.set_blocking(result, False)
            said = file.read(_RESULT_BYTES_MAX) or b""
        deployment.pid = 0
        if self._running.get(deployment.task) is not deployment:
            return
        try:
            answer = json.loads(said)
        except ValueError:
            killed = os.WIFSIGNALED(status)
            how = f"killed by signal {os.WTERMSIG(status)}" if killed else f"exit status {status}"
            self._fail(deployment, f"unpacking ended early: {how} (the task's memory limit?)", retry=True)
            return
        if not answer["ok"]:
            self._fail(deployment, answer["message"], retry=answer["retry"])
            return
        del self._running[deployment.task]
        self._forget(deployment)
        kind = PackagesPlaced if deployment.placing else PackagesStaged
        self._done(kind(task=deployment.task, deploy=deployment.deploy))

    def _fail(self, deployment: _Deployment, message: str, *, retry: bool) -> None:
        if self._running.get(deployment.task) is not deployment:
            return
        self.cancel(deployment.task)
        reason = Reason(code="deploy-failed", message=message)
        self._done(DeployFailed(task=deployment.task, deploy=deployment.deploy, reason=reason, retry=retry))

    def _forget(self, deployment: _Deployment) -> None:
        if deployment.timer is not None:
            deployment.timer.cancel()
        deployment.close_files()
        for request in [request for request, (who, _) in self._wanted.items() if who is deployment]:
            del self._wanted[request]

    def _path(self, package: PackageSpec) -> str:
        return posixpath.normpath(posixpath.join(self._workspace, package.path))


class _Deployment:
    """One task's deployment under way."""

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
        _close(list(self.files.values()))
        self.files.clear()


def _want(request: int, package: PackageSpec) -> RequestPackage:
    return RequestPackage(
        request=request, source=package.source, version=package.version, sha256=package.sha256
    )


def _close(files: list[int]) -> None:
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)
