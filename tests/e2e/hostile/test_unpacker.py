"""A program cannot use the process that unpacks its packages to get more rights than it has."""

from __future__ import annotations

import re

import pytest

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.messages.worker import RequestPackage
from galaxy.units import MIB
from tests.support.archives import make_tar
from tests.support.hostile import NOBODY, quoted

HUNTER = """
import os, time
print("hunting", flush=True)
seen = set()
while True:
    for name in os.listdir("/proc"):
        if not name.isdecimal() or name == "1":
            continue
        try:
            comm = open("/proc/%s/comm" % name).read().strip()
            if comm != "galaxy-appworke":
                continue
            if name not in seen:
                seen.add(name)
                print("seen", name, flush=True)
            os.open("/proc/%s/mem" % name, os.O_RDWR)
            print("taken", name, flush=True)
        except OSError:
            pass
"""

SWAPPER = """
import os, shutil
os.makedirs("/dev/shm/elsewhere", exist_ok=True)
print("swapping", flush=True)
targets = ["/etc", "/dev/shm/elsewhere", "/proc/1/root", "/", "/usr/lib"]
turn = 0
while True:
    turn += 1
    for victim in ("sub", ".galaxy", ".galaxy/main.0"):
        try:
            if os.path.islink(victim):
                os.unlink(victim)
            else:
                shutil.rmtree(victim, ignore_errors=True)
            os.symlink(targets[turn % len(targets)], victim)
        except OSError:
            pass
    if turn % 50 == 0:
        for victim in ("sub", ".galaxy"):
            if os.path.islink(victim):
                os.unlink(victim)
"""


def package(version: int) -> PackageSpec:
    return PackageSpec(source="http://packages/a.tar", version=str(version))


@pytest.mark.parametrize("uid", [NOBODY, 0], ids=["nobody", "root"])
def test_memory_of_the_unpacker_cannot_be_opened_by_a_program_of_the_same_user(host, tmp_path, uid) -> None:
    archive = make_tar(tmp_path / "a.tar", {f"d{n % 50}/f{n}": "x" * 100 for n in range(2500)}, mode="w")
    container = host.container(
        "hunter", uid=uid, start=quoted(HUNTER), cpu_milli=1000, memory_bytes=128 * MIB, archive=archive
    )
    container.await_log("hunting")
    container.order(package=package(1))  # It is unpacked while the old program runs.
    container.until(lambda packet: isinstance(packet, RequestPackage))
    container.await_log("seen")
    container.await_log("hunting", times=2)  # The package is installed, and the program was restarted.
    assert "taken" not in container.log()
    container.destroy()


@pytest.mark.parametrize("uid", [NOBODY, 0], ids=["nobody", "root"])
def test_links_swapped_during_unpacking_lead_only_to_files_that_the_program_can_write_itself(
    host, tmp_path, uid
) -> None:
    archive = make_tar(tmp_path / "a.tar", {f"sub/f{n}": "x" * 100 for n in range(400)}, mode="w")
    container = host.container("swapper", uid=uid, start=quoted(SWAPPER), cpu_milli=1000, archive=archive)
    logs = host.runtime.log_path(container.name, 1)
    container.await_log("swapping")
    for version in range(1, 6):
        container.order(package=package(version))
        pod = container.until_pod(
            lambda pod, generation=version + 1: (
                pod.generation == generation and pod.state in ("running", "failed")
            )
        )
        if pod.state == "failed":
            assert pod.tasks[0].reason is not None
            assert re.search("package|unpack", pod.tasks[0].reason.message)
    assert container.alive
    owners = container.facts(
        "import json, os; print(json.dumps([os.lstat('/dev/shm/elsewhere/' + name).st_uid "
        "for name in os.listdir('/dev/shm/elsewhere')]))"
    )
    assert set(owners) <= {uid}
    assert {path.name.lstrip(".").split(".")[0] for path in logs.iterdir()} <= {"main", "appworker"}
    # After the race the next version is deployed normally.
    container.order(start="exec sleep 1000000", package=None)
    container.until_state("running")
    assert container.sh("rm -rf sub .galaxy; ls -A")[0] == 0
    container.order(package=package(99))
    container.until_state("running")
    assert container.sh("ls sub | wc -l")[1].strip() == "400"
    container.destroy()


LEFT = {
    "a link to a directory that it cannot read": "rm -rf .galaxy; ln -s /proc/1/root .galaxy",
    "a link to a directory that it cannot write": "rm -rf .galaxy; ln -s /etc .galaxy",
    "a file": "rm -rf .galaxy; echo x > .galaxy",
    "a pipe": "rm -f .galaxy/main.json; mkfifo .galaxy/main.json",
    "a directory without permissions": "chmod 0 .galaxy",
    "no directory": "rm -rf .galaxy",
    "a link in place of a directory of the package": "rm -rf sub; ln -s /proc/1/root sub",
}


def test_next_version_is_deployed_whatever_the_program_left_where_packages_are_recorded(
    host, tmp_path
) -> None:
    archive = make_tar(tmp_path / "a.tar", {"sub/f": "x"}, mode="w")
    container = host.container("leaver", uid=NOBODY, package=package(0), archive=archive)
    container.until_state("running")
    for version, (what, script) in enumerate(LEFT.items()):
        for required in (None, package(version + 1)):
            assert container.sh(script)[0] == 0, what
            container.order(package=required)
            pod = container.until_pod(
                lambda pod, generation=container.generation: (
                    pod.generation == generation and pod.state in ("running", "failed")
                )
            )
            assert pod.state == "running", (what, pod.tasks[0].reason)
            if required is not None:
                assert container.sh("cat sub/f")[1] == "x", what
    container.destroy()
