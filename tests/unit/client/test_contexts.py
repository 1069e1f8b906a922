"""The cluster that a command uses, and the contexts of a user."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from galaxy.client import contexts
from galaxy.client.cluster_file import ClusterFile, remove_cluster, write_cluster
from galaxy.errors import GalaxyError, NotFound, UsageError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "config" / "contexts.json"


def running(tmp_path: Path, name: str = "a") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    write_cluster(ClusterFile(dir=str(folder), url=f"redis://:x@127.0.0.1:1/{name}"))
    return folder


def test_files_with_passwords_are_for_their_owner_only(tmp_path: Path, path: Path) -> None:
    folder = running(tmp_path)
    contexts.save_context(dir=folder, path=path)
    assert (folder / "cluster.json").stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o600


def test_last_saved_context_is_the_current_cluster(tmp_path: Path, path: Path) -> None:
    contexts.save_context(dir=running(tmp_path, "a"), path=path)
    contexts.save_context(dir=running(tmp_path, "b"), path=path)
    assert contexts.find_cluster(environ={}, path=path).dir == str(tmp_path / "b")


def test_cluster_saved_again_keeps_its_name_and_adds_no_context(tmp_path: Path, path: Path) -> None:
    folder = running(tmp_path)
    first = contexts.save_context(dir=folder, name="mine", path=path)
    assert contexts.save_context(dir=folder, path=path) == first
    assert len(contexts.load_contexts(path).contexts) == 1


def test_two_folders_with_one_name_get_different_context_names(tmp_path: Path, path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        contexts.save_context(dir=running(tmp_path / parent, "same"), path=path)
    assert [c.name for c in contexts.load_contexts(path).contexts] == ["same", "same-2"]


def test_argument_precedes_environment_and_environment_precedes_context(tmp_path: Path, path: Path) -> None:
    contexts.save_context(dir=running(tmp_path, "ctx"), path=path)
    env_dir = running(tmp_path, "env")
    environ = {"GALAXY_REDIS": "redis://env", "GALAXY_DIR": str(env_dir)}
    assert contexts.find_cluster(url="redis://arg", environ=environ, path=path).url == "redis://arg"
    assert contexts.find_cluster(context="ctx", environ=environ, path=path).dir == str(tmp_path / "ctx")
    assert contexts.find_cluster(environ=environ, path=path).url == "redis://env"
    assert contexts.find_cluster(environ={"GALAXY_DIR": str(env_dir)}, path=path).dir == str(env_dir)
    assert contexts.find_cluster(environ={}, path=path).dir == str(tmp_path / "ctx")


def test_without_any_cluster_the_error_says_how_to_start_one(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts.os, "geteuid", lambda: 1000)
    with pytest.raises(NotFound) as caught:
        contexts.find_cluster(environ={"XDG_STATE_HOME": str(tmp_path / "none")}, path=path)
    assert "galaxy up" in caught.value.hint


def test_folder_without_a_running_cluster_is_an_error_with_its_origin(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NotFound, match="no cluster runs in") as caught:
        contexts.find_cluster(environ={"GALAXY_DIR": str(tmp_path)}, path=path)
    assert caught.value.details == ("named by GALAXY_DIR",)


def test_two_arguments_that_name_clusters_are_wrong_usage(path: Path) -> None:
    with pytest.raises(UsageError):
        contexts.find_cluster(url="redis://a", context="b", environ={}, path=path)


def test_removing_the_current_context_makes_only_a_single_other_one_current(
    tmp_path: Path, path: Path
) -> None:
    for name in ("a", "b", "c"):
        contexts.save_context(dir=running(tmp_path, name), path=path)
    assert contexts.remove_context(name="c", path=path).current == ""
    with pytest.raises(NotFound) as caught:
        contexts.find_cluster(environ={}, path=path)
    assert caught.value.details == ("known: a, b",)
    contexts.use_context("b", path)
    assert contexts.remove_context(dir=tmp_path / "b", path=path).current == "a"


def test_stopped_cluster_stays_current_and_the_error_says_how_to_start_it(tmp_path: Path, path: Path) -> None:
    for name in ("a", "b c"):
        contexts.save_context(dir=running(tmp_path, name), path=path)
    (tmp_path / "b c" / "plan.json").touch()
    remove_cluster(tmp_path / "b c")
    with pytest.raises(NotFound, match="is stopped") as caught:
        contexts.find_cluster(environ={}, path=path)
    assert caught.value.hint == f"galaxy up --dir '{tmp_path}/b c' --detach"
    assert caught.value.details == (
        'named by the current context "b-c"',
        "these run: a; galaxy context use a chooses one",
    )


def test_stopped_cluster_in_the_default_folder_is_named(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "default_dir", lambda *_: tmp_path)
    (tmp_path / "plan.json").touch()
    with pytest.raises(NotFound, match="is stopped") as caught:
        contexts.find_cluster(environ={}, path=path)
    assert (caught.value.details, caught.value.hint) == (
        ("named by the default folder",),
        "galaxy up --detach",
    )


def test_cluster_is_obvious_only_if_no_other_one_could_be_meant(tmp_path: Path, path: Path) -> None:
    first = running(tmp_path, "a")

    def is_obvious(**named: str) -> bool:
        environ = {name: value for name, value in named.items() if name.isupper()}
        arguments = {name: value for name, value in named.items() if name.islower()}
        return contexts.find_cluster(**arguments, environ=environ, path=path).is_obvious  # type: ignore[arg-type]

    assert is_obvious(dir=str(first))
    assert not is_obvious(GALAXY_REDIS="redis://h")
    contexts.save_context(dir=first, path=path)
    assert is_obvious() and is_obvious(dir=str(first)) and is_obvious(GALAXY_DIR=str(first))
    write_cluster(ClusterFile(dir=str(first), url="redis://:x@127.0.0.1:1/0"))
    assert is_obvious(GALAXY_REDIS="redis://:other@127.0.0.1:1/0"), "the same server by another login"
    second = running(tmp_path, "b")
    assert not is_obvious(dir=str(second))
    assert not is_obvious(url="redis://h")
    contexts.save_context(dir=second, path=path)
    assert not is_obvious() and not is_obvious(dir=str(second))


def test_context_whose_folder_is_deleted_is_dropped_with_the_next_one(tmp_path: Path, path: Path) -> None:
    contexts.save_context(dir=running(tmp_path, "a"), path=path)
    shutil.rmtree(tmp_path / "a")
    contexts.save_context(dir=running(tmp_path, "b"), path=path)
    assert [context.name for context in contexts.load_contexts(path).contexts] == ["b"]


def test_chosen_cluster_is_described_without_its_password(path: Path) -> None:
    contexts.save_context(url="rediss://ann:se@cret@db.example:6379/0", name="far", path=path)
    chosen = contexts.find_cluster(environ={}, path=path)
    assert str(chosen) == 'cluster at rediss://db.example:6379/0, named by the current context "far"'


def test_url_context_is_named_after_its_host_without_password(path: Path) -> None:
    assert contexts.save_context(url="redis://:secret@db.example:6379/0", path=path).name == "db.example"


def test_unknown_context_is_an_error_that_lists_the_known_ones(tmp_path: Path, path: Path) -> None:
    contexts.save_context(dir=running(tmp_path), path=path)
    with pytest.raises(NotFound) as caught:
        contexts.use_context("zzz", path)
    assert "known: a" in caught.value.details[0]


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
@pytest.mark.parametrize("named", ["folder", "context", "GALAXY_DIR", "default"])
def test_running_cluster_of_an_earlier_release_is_refused_with_what_to_use(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, named: str, release: str
) -> None:
    folder = running(tmp_path)
    write_cluster(ClusterFile(dir=str(folder), url="redis://h", version=release))
    environ: dict[str, str] = {}
    if named == "context":
        contexts.save_context(dir=folder, path=path)
    if named == "GALAXY_DIR":
        environ["GALAXY_DIR"] = str(folder)
    if named == "default":
        monkeypatch.setattr(contexts, "default_dir", lambda _: folder)
    with pytest.raises(GalaxyError, match=f"Galaxy {release} runs the cluster in") as caught:
        contexts.find_cluster(dir=folder if named == "folder" else "", environ=environ, path=path)
    assert f"galaxy command of {release}" in caught.value.hint
