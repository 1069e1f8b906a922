"""Unpacking: invalid archives are refused, and one version replaces another."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.worker_entry.logic.archive import MemberRefused, safe_mode, safe_name, safe_symlink
from galaxy.worker_entry.package_files import UnpackFailed, discard, label, place
from galaxy.worker_entry.unpack import stage
from tests.support.archives import make_member, make_tar

ONE, TWO, DATA = (PackageSpec(source=name, version="1") for name in ("one", "two", "data"))


def put(where, tmp_path, package, files, required=None, members=()):
    fd = os.open(make_tar(tmp_path / "archive", files, members=members), os.O_RDONLY)
    try:
        stage("web", str(where), [(package, fd)])
    finally:
        os.close(fd)
    place("web", str(where), required or [package])


def tree(where):
    return {
        os.path.relpath(os.path.join(directory, name), where)
        for directory, _, names in os.walk(where)
        for name in names
        if ".galaxy" not in directory
    }


@given(st.text(max_size=40) | st.from_regex(r"(\.{0,3}/?[a-c]{0,2}/?){0,6}", fullmatch=True))
def test_safe_name_stays_inside_or_is_refused(name):
    try:
        safe = safe_name(name)
    except MemberRefused:
        return
    assert os.path.normpath(os.path.join("/root", safe)).startswith("/root")
    assert ".." not in safe.split("/") and not safe.startswith("/")


@given(
    st.from_regex(r"[a-c](/[a-c]){0,3}", fullmatch=True),
    st.from_regex(r"(\.{0,2}/?[a-c]?/?){0,6}", fullmatch=True),
)
def test_safe_symlink_points_inside_or_is_refused(name, target):
    try:
        safe_symlink(name, target)
    except MemberRefused:
        return
    resolved = os.path.normpath(os.path.join("/root", os.path.dirname(name), target))
    assert resolved == "/root" or resolved.startswith("/root/")


@given(st.integers(0, 0o177777))
def test_safe_mode_lets_only_the_owner_write_and_has_no_setuid(mode):
    safe = safe_mode(mode)
    assert safe & ~0o755 == 0 and safe & 0o600 == 0o600
    assert (safe & 0o111 == 0) or safe & 0o100


def test_package_is_named_without_the_password_of_its_url():
    package = PackageSpec(source="ftp://user:se@cret@host:21/a@b/app.tar.gz", version="2")
    assert label(package) == "ftp://***@b/app.tar.gz (version 2)"
    assert label(ONE) == "one (version 1)"


def test_file_that_is_no_archive_is_refused_with_the_reason(tmp_path):
    (tmp_path / "junk").write_bytes(b"not an archive" * 100)
    fd = os.open(tmp_path / "junk", os.O_RDONLY)
    try:
        with pytest.raises(UnpackFailed, match=r"refused to unpack one .*: it is neither .* nor a zip$"):
            stage("web", str(tmp_path / "w"), [(ONE, fd)])
    finally:
        os.close(fd)


def test_new_version_replaces_the_old_one_and_keeps_files_of_the_program(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"a/b/gone": "1", "a/stays": "1", "both": "1"})
    (where / "a/mine").write_text("mine")
    put(where, tmp_path, TWO, {"a/stays": "2", "both": "2", "fresh": "2"})
    assert tree(where) == {"a/stays", "a/mine", "both", "fresh"}
    assert (where / "both").read_text() == "2"
    assert not (where / "a/b").exists()
    assert os.listdir(where / ".galaxy") == ["web.json"]


def test_package_beside_another_in_one_directory_is_replaced_alone(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"program": "1"})
    put(where, tmp_path, DATA, {"words": "1"}, required=[ONE, DATA])
    put(where, tmp_path, TWO, {"program2": "2"}, required=[TWO, DATA])
    assert tree(where) == {"program2", "words"}


def test_removed_package_leaves_no_files(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"a/b": "1"})
    place("web", str(where), [])
    assert os.listdir(where) == [".galaxy"]


def test_files_and_directories_and_links_change_kind_between_versions(tmp_path):
    where = tmp_path / "w"
    link = make_member("l", tarfile.SYMTYPE, "file")
    put(where, tmp_path, ONE, {"x/y": "1", "file": "1"}, members=[link])
    put(where, tmp_path, TWO, {"x": "2", "file/z": "2", "l/m": "2"})
    assert tree(where) == {"x", "file/z", "l/m"}
    put(where, tmp_path, ONE, {"x/y": "1", "file": "1"}, members=[link])
    assert tree(where) == {"x/y", "file", "l"}
    assert os.readlink(where / "l") == "file"


def test_package_with_a_file_where_the_program_has_a_directory_is_refused_and_changes_nothing(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"a": "1"})
    (where / "out").mkdir()
    (where / "out/mine").write_text("mine")
    with pytest.raises(UnpackFailed, match="'out' is a file in the package") as failed:
        put(where, tmp_path, TWO, {"a": "2", "out": "2"})
    assert not failed.value.retry
    assert (where / "a").read_text() == "1"
    assert (where / "out/mine").read_text() == "mine"


def test_interrupted_replacement_is_completed_by_the_next(tmp_path, monkeypatch):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"old": "1"})
    real, calls = os.replace, []

    def replace(source, target):
        if not str(target).endswith(".json"):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(UnpackFailed) as failed:
            put(where, tmp_path, TWO, {"n1": "2", "n2": "2", "n3": "2"})
    assert failed.value.retry
    put(where, tmp_path, DATA, {"final": "3"})
    assert tree(where) == {"final"}


def test_staged_files_of_a_package_that_is_no_longer_required_are_not_placed(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"a": "1"})
    fd = os.open(make_tar(tmp_path / "archive", {"b": "2"}), os.O_RDONLY)
    stage("web", str(where), [(TWO, fd)])
    os.close(fd)
    place("web", str(where), [ONE])
    assert tree(where) == {"a"}
    assert os.listdir(where / ".galaxy") == ["web.json"]


def test_staged_files_that_are_gone_fail_placing_with_a_retry(tmp_path):
    where = tmp_path / "w"
    fd = os.open(make_tar(tmp_path / "archive", {"a": "1"}), os.O_RDONLY)
    stage("web", str(where), [(ONE, fd)])
    os.close(fd)
    discard("web", str(where))
    with pytest.raises(UnpackFailed, match="gone") as failed:
        place("web", str(where), [ONE])
    assert failed.value.retry


def test_hard_links_and_modes_come_out_safe(tmp_path):
    where = tmp_path / "w"
    put(where, tmp_path, ONE, {"tool": "x"}, members=[make_member("again", tarfile.LNKTYPE, "tool")])
    assert (where / "again").samefile(where / "tool")
    assert stat.S_IMODE((where / "tool").stat().st_mode) == 0o755


def leave_link(hidden, elsewhere):
    shutil.rmtree(hidden)
    hidden.symlink_to(elsewhere)


def leave_dangling_link(hidden, _):
    shutil.rmtree(hidden)
    hidden.symlink_to("/nowhere/at/all")


def leave_file(hidden, _):
    shutil.rmtree(hidden)
    hidden.write_text("x")


def leave_fifo(hidden, _):
    shutil.rmtree(hidden)
    os.mkfifo(hidden)


def leave_fifo_as_manifest(hidden, _):
    (hidden / "web.json").unlink()
    os.mkfifo(hidden / "web.json")


def leave_directories_as_manifests(hidden, _):
    for name in ("web.json", "web.json~", "web.0.json", "web.0.json~"):
        (hidden / name).unlink(missing_ok=True)
        (hidden / name / "below").mkdir(parents=True)


def leave_links_as_manifests(hidden, elsewhere):
    for name in ("web.json", "web.json~", "web.0", "web.0.json", "web.0.json~"):
        (hidden / name).unlink(missing_ok=True)
        (hidden / name).symlink_to(elsewhere / "theirs")


def leave_deep_manifest(hidden, _):
    (hidden / "web.json").write_text("[" * 100_000)


def leave_invalid_paths_in_manifest(hidden, _):
    paths = ["\0", "\ud800", "", ".", "../x", "/etc/x", "a" * 5000, "a/" * 3000, 7]
    (hidden / "web.json").write_text(json.dumps({"one 1 ": paths}))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "leave",
    [
        leave_link,
        leave_dangling_link,
        leave_file,
        leave_fifo,
        leave_fifo_as_manifest,
        leave_directories_as_manifests,
        leave_links_as_manifests,
        leave_deep_manifest,
        leave_invalid_paths_in_manifest,
    ],
)
def test_next_version_is_placed_whatever_the_program_left_in_the_directory_of_galaxy(tmp_path, leave):
    where, elsewhere = tmp_path / "w", tmp_path / "elsewhere"
    (elsewhere / "web.0").mkdir(parents=True)
    (elsewhere / "theirs").write_text("x")
    put(where, tmp_path, ONE, {"sub/a": "1"})
    leave(where / ".galaxy", elsewhere)
    place("web", str(where), [])
    put(where, tmp_path, TWO, {"sub/b": "2"})
    assert tree(where) >= {"sub/b"}
    leave(where / ".galaxy", elsewhere)
    put(where, tmp_path, DATA, {"sub/c": "3"})
    assert tree(where) >= {"sub/c"}
    assert sorted(os.listdir(elsewhere)) == ["theirs", "web.0"]
    assert (elsewhere / "theirs").read_text() == "x"


def test_files_behind_a_link_that_replaced_a_directory_of_the_package_are_kept(tmp_path):
    where, elsewhere = tmp_path / "w", tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(where, tmp_path, ONE, {"sub/a": "1"})
    shutil.rmtree(where / "sub")
    (elsewhere / "a").write_text("theirs")
    (where / "sub").symlink_to(elsewhere)
    put(where, tmp_path, TWO, {"b": "2"})
    assert (elsewhere / "a").read_text() == "theirs"
    shutil.rmtree(where / ".galaxy")
    (elsewhere / "c").mkdir()
    (elsewhere / "c" / "theirs").write_text("x")
    put(where, tmp_path, ONE, {"sub/c": "3"})  # A file here, and a directory behind the link.
    assert (where / "sub" / "c").read_text() == "3"
    assert (elsewhere / "c" / "theirs").read_text() == "x"
