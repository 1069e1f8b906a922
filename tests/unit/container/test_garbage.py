"""Garbage goes whatever its shape, and nothing beside it."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from galaxy.container.fs.garbage import GarbageCleaner, delete_within

DEEP = 3000
"""Deeper than Python may recurse, and longer a path than the kernel takes."""


def test_deep_and_broad_garbage_is_deleted(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    (garbage / "web.0_1").mkdir(parents=True)
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


def test_links_are_deleted_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    garbage = tmp_path / "garbage"
    (garbage / "web.0_1").mkdir(parents=True)
    (garbage / "link").symlink_to(kept)
    (garbage / "web.0_1" / "link").symlink_to(kept)
    delete_within(str(garbage))
    assert list(garbage.iterdir()) == []
    assert (kept / "file").read_text() == "here"


def test_garbage_that_is_not_there_is_fine(tmp_path: Path) -> None:
    delete_within(str(tmp_path / "none"))


def test_garbage_that_comes_while_other_garbage_goes_does_not_resist(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    cleaner = GarbageCleaner(str(garbage))
    try:
        for turn in range(12):
            for number in range(10):
                _litter(garbage, f"{turn}-before-{number}", files=30)
            cleaner.request()
            cleaner.start()
            for number in range(30):  # No more: it may come faster than it goes.
                if select.select([cleaner], [], [], 0.001)[0]:
                    break
                _litter(garbage, f"{turn}-{number}")
            assert select.select([cleaner], [], [], 60)[0]
            assert cleaner.finish()
    finally:
        cleaner.close()
    assert "garbage.stays" not in capfd.readouterr().err


def _litter(garbage: Path, name: str, files: int = 1) -> None:
    one = garbage.parent / name
    one.mkdir()
    for index in range(files):
        (one / str(index)).touch()
    one.rename(garbage / name)
