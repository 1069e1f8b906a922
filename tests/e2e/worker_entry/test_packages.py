"""Packages are unpacked and updated without leaving old files, and invalid archives are refused."""

from __future__ import annotations

import os
import tarfile
import zipfile

import pytest

from galaxy.model.jobspec.spec import DataSpec, PackageSpec, RestartSpec
from galaxy.model.messages.pod import PodState, TaskState
from tests.support.archives import make_member as member
from tests.support.archives import make_tar


def package(version, path="", source="http://x/app"):
    return PackageSpec(source=f"{source}-{version}", version=version, path=path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_program_of_a_tar_package_runs(container, root, spec, mode):
    container.packages["http://x/app-1"] = make_tar(
        root / "a", {"bin/run": "echo hello > out; exec sleep 60"}, mode
    )
    container.order(spec("exec sh bin/run", package=package("1")))
    task = container.until_task(lambda task: task.state == TaskState.RUNNING)
    assert task.version == "1"
    assert container.until_true(lambda: container.text("out")) == "hello\n"
    assert os.access(container.workspace / "bin/run", os.X_OK)


def test_program_of_a_zip_package_runs(container, root, spec):
    with zipfile.ZipFile(root / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("bin/run")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, "#!/bin/sh\necho zipped > out; exec sleep 60")
    container.packages["http://x/app-1"] = root / "z"
    container.order(spec("exec bin/run", package=package("1")))
    assert container.until_true(lambda: container.text("out")) == "zipped\n"


def test_update_removes_old_files_and_keeps_files_that_the_program_created(container, root, spec):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"old/only": "1", "both": "1", "lib/x": "1"})
    container.packages["http://x/app-2"] = make_tar(root / "b", {"new/only": "2", "both": "2"})
    start = "echo mine >> mine; echo mine > lib/mine 2>/dev/null; exec sleep 60"
    container.order(spec(start, package=package("1")))
    container.until_true(lambda: container.text("lib/mine"))
    container.order(spec(start, package=package("2")))
    task = container.until_task(lambda task: task.state == TaskState.RUNNING and task.version == "2")
    assert task.restarts == 0
    assert container.text("both") == "2"
    assert container.text("new/only") == "2"
    assert not (container.workspace / "old").exists()
    assert not (container.workspace / "lib/x").exists()
    assert container.text("lib/mine") == "mine\n"
    container.until_true(lambda: container.text("mine") == "mine\nmine\n")


def test_old_program_keeps_running_until_the_new_package_is_fetched(container, root, spec):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"f": "1"})
    container.order(spec("echo $$ > pid; exec sleep 60", package=package("1")))
    pid = int(container.until_true(lambda: container.text("pid")))
    container.packages["http://x/app-2"] = "mirror is away"
    changed = spec("echo $$ > pid2; exec sleep 60", package=package("2"), restart=RestartSpec(delay=0.1))
    container.order(changed)
    task = container.until_task(lambda task: task.reason is not None)
    assert task.state == TaskState.DEPLOYING
    assert "mirror is away" in task.reason.message
    assert os.path.exists(f"/proc/{pid}")
    container.packages["http://x/app-2"] = make_tar(root / "b", {"f": "2"})
    container.until_task(lambda task: task.state == TaskState.RUNNING and task.version == "2")
    assert not os.path.exists(f"/proc/{pid}")


def test_task_whose_package_cannot_be_fetched_fails_after_its_attempts(container, spec):
    rule = RestartSpec(policy="on-failure", attempts=2, delay=0.05)
    container.order(spec("true", package=package("1"), restart=rule))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert "no such package" in task.reason.message
    assert container.fetched == ["1"] * 3


def test_fetch_that_cannot_succeed_is_not_tried_again(container, spec):
    container.packages["http://x/app-1"] = "final: sha256 differs"
    container.order(spec("true", package=package("1")))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert "sha256 differs" in task.reason.message
    assert container.fetched == ["1"]


def linked(*members):
    return lambda path: make_tar(path, {}, members=members)


def text(content):
    def write(path):
        path.write_bytes(content)
        return path

    return write


def cut_off(path):
    data = make_tar(path, {"big": "x" * 100_000}, mode="w").read_bytes()
    path.write_bytes(data[:5000])
    return path


INVALID = {
    "dotdot": lambda path: make_tar(path, {"ok": "x", "../escaped": "x"}),
    "absolute": lambda path: make_tar(path, {"/tmp/galaxy-escaped": "x"}),
    "absolute link": linked(member("l", tarfile.SYMTYPE, "/etc")),
    "link to ..": linked(member("d/l", tarfile.SYMTYPE, "../../x")),
    "hard link outside": linked(member("h", tarfile.LNKTYPE, "../../etc/passwd")),
    "device": linked(member("d", tarfile.CHRTYPE)),
    "pipe": linked(member("p", tarfile.FIFOTYPE)),
    "through a link": linked(
        member("d", tarfile.DIRTYPE), member("l", tarfile.SYMTYPE, "d"), member("l/f", tarfile.REGTYPE)
    ),
    "reserved": lambda path: make_tar(path, {".galaxy/main.json": "{}"}),
    "no archive": text(b"this is not an archive"),
    "cut off": cut_off,
    "empty": text(b""),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_archive_is_refused_and_leaves_the_old_package_unchanged(container, root, spec, kind):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"f": "1"})
    container.order(spec("exec sleep 60", package=package("1")))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    container.packages["http://x/app-2"] = INVALID[kind](root / "b")
    container.order(spec("exec sleep 60", package=package("2")))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert "refused to unpack http://x/app-2" in task.reason.message
    assert container.fetched == ["1", "2"]
    assert container.text("f") == "1"
    assert sorted(os.listdir(container.workspace)) == [".galaxy", "f"]
    assert os.listdir(container.workspace / ".galaxy") == ["main.json"]
    assert not (root / "escaped").exists() and not os.path.exists("/tmp/galaxy-escaped")


def test_rollback_after_an_invalid_archive_starts_the_old_program_without_fetching(container, root, spec):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"f": "1"})
    good = spec("exec sleep 60", package=package("1"))
    container.order(good)
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    container.packages["http://x/app-2"] = INVALID["no archive"](root / "b")
    container.order(spec("exec sleep 60", package=package("2")))
    container.until_task(lambda task: task.state == TaskState.FAILED)
    container.order(good)
    container.until_task(lambda task: task.state == TaskState.RUNNING and task.version == "1")
    assert container.fetched == ["1", "2"]


def test_new_data_is_reloaded_while_the_program_stays(container, root, spec):
    for version in "12":
        container.packages[f"http://x/data-{version}"] = make_tar(
            root / version, {"words": version, f"only{version}": ""}
        )

    def with_data(version):
        data = DataSpec(
            packages=(package(version, "data", "http://x/data"),), reload="cat data/words >> loaded"
        )
        return spec("echo $$ >> pids; exec sleep 60", data=data)

    container.order(with_data("1"))
    container.until(lambda pod: pod.healthy)
    container.order(with_data("2"))
    container.until(lambda pod: pod.generation == 2 and pod.healthy)
    assert container.text("loaded") == "2"
    assert len(container.text("pids").split()) == 1
    assert not (container.workspace / "data/only1").exists()
    assert (container.workspace / "data/only2").exists()
    assert all(report.state == PodState.RUNNING for report in container.reports if report.generation == 2)


def test_failed_reload_is_reported_and_leaves_the_program_running(container, root, spec):
    for version in "12":
        container.packages[f"http://x/data-{version}"] = make_tar(root / version, {"words": version})

    def with_data(version):
        data = DataSpec(packages=(package(version, "data", "http://x/data"),), reload="exit 4")
        return spec("exec sleep 60", data=data)

    container.order(with_data("1"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    container.order(with_data("2"))
    task = container.until_task(lambda task: task.reason is not None)
    assert (task.state, task.healthy, task.reason.code) == (TaskState.RUNNING, False, "reload-failed")


def test_redeploy_fetches_and_unpacks_the_package_again(container, root, spec):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"f": "sound"})
    broken = spec("echo broken > f; exec sleep 60", package=package("1"))
    container.order(broken)
    container.until_true(lambda: container.text("f") == "broken\n")
    container.order(spec("exec sleep 60", package=package("1")), redeploy=True)
    container.until_true(lambda: container.text("f") == "sound")
    assert container.fetched == ["1", "1"]


def test_request_for_a_package_is_repeated_to_a_new_agent(container, root, spec):
    container.packages["http://x/app-1"] = make_tar(root / "a", {"f": "1"})
    serve, container.serve_package = container.serve_package, lambda request: None
    container.order(spec("exec sleep 60", package=package("1")))
    container.until_true(lambda: container.fetched)
    container.serve_package = serve
    container.connect()
    container.until_task(lambda task: task.state == TaskState.RUNNING)
