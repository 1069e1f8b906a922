"""Discarded directories of any depth are deleted, and nothing outside them."""

from __future__ import annotations

import os
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from galaxy.container.fs.garbage import GarbageCleaner, delete_within, discard, has_garbage

DEEP = 3000
"""More levels than Python may recurse, and a longer path than the kernel accepts."""
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory in memory where the host has one: on a disk, thousands of directories take seconds."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def garbage(folder: Path) -> Path:
    path = folder / "garbage"
    path.mkdir()
    return path


@pytest.fixture
def cleaner(garbage: Path) -> Iterator[GarbageCleaner]:
    cleaner = GarbageCleaner(str(garbage))
    yield cleaner
    cleaner.close()


def test_deep_and_broad_garbage_is_deleted(garbage: Path) -> None:
    (garbage / "web.0_1").mkdir()
    at = os.open(garbage / "web.0_1", os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(at)
        at = below
    os.close(at)
    for index in range(100):
        (garbage / "web.1_1" / str(index) / "x").mkdir(parents=True)
    delete_within(str(garbage))
    assert list(garbage.iterdir()) == []


def test_links_are_deleted_and_not_followed(garbage: Path, folder: Path) -> None:
    kept = folder / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    (garbage / "web.0_1").mkdir()
    (garbage / "link").symlink_to(kept)
    (garbage / "web.0_1" / "link").symlink_to(kept)
    delete_within(str(garbage))
    assert list(garbage.iterdir()) == []
    assert (kept / "file").read_text() == "here"


def test_deleting_in_a_directory_that_does_not_exist_does_nothing(folder: Path) -> None:
    delete_within(str(folder / "none"))


def test_discarded_directory_is_gone_at_once_and_deleted_by_the_cleaner(
    garbage: Path, cleaner: GarbageCleaner, folder: Path
) -> None:
    discarded = folder / "c" / "x_1"
    (discarded / "deep" / "deeper").mkdir(parents=True)
    (discarded / "deep" / "file").write_text("x")
    discard(str(discarded), str(garbage))
    assert not discarded.exists()
    assert has_garbage(str(garbage))
    cleaner.start()
    assert select.select([cleaner], [], [], 10.0)[0]
    assert cleaner.finish()
    assert not has_garbage(str(garbage))


def test_discarding_a_directory_that_does_not_exist_does_nothing(garbage: Path, folder: Path) -> None:
    discard(str(folder / "none"), str(garbage))
    assert not has_garbage(str(garbage))


def test_garbage_that_arrives_during_a_round_is_not_reported_as_undeletable(
    garbage: Path, cleaner: GarbageCleaner, capfd: pytest.CaptureFixture[str]
) -> None:
    for turn in range(12):
        for number in range(10):
            _add_garbage(garbage, f"{turn}-before-{number}", files=30)
        cleaner.request()
        cleaner.start()
        for number in range(30):  # At most 30, because it may arrive faster than it is deleted.
            if select.select([cleaner], [], [], 0.001)[0]:
                break
            _add_garbage(garbage, f"{turn}-{number}")
        assert select.select([cleaner], [], [], 60)[0]
        assert cleaner.finish()
    assert "garbage.stays" not in capfd.readouterr().err


def _add_garbage(garbage: Path, name: str, files: int = 1) -> None:
    directory = garbage.parent / name
    directory.mkdir()
    for index in range(files):
        (directory / str(index)).touch()
    directory.rename(garbage / name)
