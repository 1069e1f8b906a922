"""Records in files are read back as written, or as None when a file has no valid record."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.container.launcher.protocol import Ended, InitRecord
from galaxy.container.record_file import load_record, save_record

RECORD = Ended(container="a-000000.0", incarnation=3, status=-9, oom=True)


def test_saved_record_is_loaded_as_it_was(tmp_path: Path) -> None:
    save_record(str(tmp_path / "ended.json"), RECORD)
    assert load_record(str(tmp_path / "ended.json"), Ended) == RECORD


@pytest.mark.parametrize("content", [None, "", "{", '"text"', "[1]"])
def test_file_without_a_record_is_loaded_as_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ended.json"
    if content is not None:
        path.write_text(content)
    assert load_record(str(path), Ended) is None


def test_record_of_another_kind_is_loaded_as_none(tmp_path: Path) -> None:
    save_record(str(tmp_path / "ended.json"), RECORD)
    assert load_record(str(tmp_path / "ended.json"), InitRecord) is None


def test_failed_save_leaves_the_previous_record(tmp_path: Path) -> None:
    path = tmp_path / "ended.json"
    save_record(str(path), RECORD)
    (tmp_path / "ended.json.new").mkdir()  # The draft cannot be written.
    with pytest.raises(OSError, match=r"ended\.json\.new"):
        save_record(str(path), Ended(container="b-000000.0", incarnation=1))
    assert load_record(str(path), Ended) == RECORD
