"""The crontab line of a batch job."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from galaxy.cli.job.cron import crontab_line, in_folder
from galaxy.cli.main import run
from galaxy.client import contexts
from galaxy.client.cluster_file import ClusterFile, write_cluster
from galaxy.errors import UsageError

BATCH = "name: nightly\ntype: batch\npod: {tasks: [{cpu: 1, memory: 64M, start: 'true'}]}\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "a b 50%.yaml"
    path.write_text(BATCH)
    return path


def test_line_has_full_paths_that_survive_cron_and_its_shell(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.parent)
    line = crontab_line(Path(job.name), in_folder("/var/lib/my cluster"), "0 4 * * 1")
    assert line.startswith("0 4 * * 1 /")
    assert "%" not in line.replace("\\%", "")
    words = shlex.split(line.split(" ", 5)[5].replace("\\%", "%"))
    assert words[-6:] == ["job", "run", "--dir", "/var/lib/my cluster", "--wait", str(job)]
    assert Path(words[0]).is_absolute()


def test_service_wrong_schedule_and_standard_input_are_refused(job: Path) -> None:
    with pytest.raises(UsageError, match="not a schedule"):
        crontab_line(job, "", "4 4 4")
    with pytest.raises(UsageError, match="no standard input"):
        crontab_line(Path("-"), "")
    job.write_text(BATCH.replace("batch", "service"))
    with pytest.raises(UsageError, match='cron runs batch jobs; "nightly" is a service'):
        crontab_line(job, "")


def test_line_names_the_folder_or_the_context_and_never_a_url(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GALAXY_REDIS", "GALAXY_REDIS_FILE", "GALAXY_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_cluster(ClusterFile(dir=str(tmp_path), url="redis://:x@127.0.0.1:1/0"))
    contexts.save_context(dir=tmp_path)
    contexts.save_context(url="redis://:pw@h:1/0", name="far")
    for arguments, named in ((["--dir", str(tmp_path)], f"--dir {tmp_path}"), ([], "--context far")):
        assert run(["job", "cron", *arguments, str(job)]) == 0
        assert f" job run {named} --wait " in capsys.readouterr().out
    assert run(["job", "cron", "--redis", "redis://h:1/0", str(job)]) == 64
