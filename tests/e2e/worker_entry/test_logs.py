"""Output files are rotated by size, and the output of each run can be found."""

from __future__ import annotations

import contextlib

from galaxy.model.base import decode
from galaxy.model.jobspec.spec import RestartSpec
from galaxy.model.messages.log_files import RunIndex, base_of, file_names, index_name, pieces, run_span
from galaxy.model.messages.pod import TaskState


def read(container, stream="stdout", back=None, files_max=5):
    """Read a stream as the agent's log reader would."""
    index = decode((container.logs / index_name("main")).read_bytes(), RunIndex)
    sizes = []
    for name in file_names("main", stream, files_max):
        with contextlib.suppress(FileNotFoundError):
            sizes.append((name, (container.logs / name).stat().st_size))
    start, end = (0, None) if back is None else run_span(index, stream, back=back)
    text = b""
    for piece in pieces(sizes, base_of(index, stream), start, end):
        text += (container.logs / piece.name).read_bytes()[piece.start : piece.start + piece.length]
    return text.decode()


def test_each_stream_has_its_own_file(container, spec):
    container.order(spec("echo out; echo err >&2; exit 1", restart=RestartSpec(policy="never")))
    container.until_task(lambda task: task.state == TaskState.FAILED)
    assert container.log("main.stdout") == "out\n"
    assert container.log("main.stderr") == "err\n"


def test_full_files_are_rotated_at_line_ends_and_the_oldest_is_deleted(launch, spec):
    container = launch(log_bytes_max=1000, log_files_max=3)
    container.order(spec("seq 1 2000; exit 1", restart=RestartSpec(policy="never")))
    container.until_task(lambda task: task.state == TaskState.FAILED)
    files = sorted(path.name for path in container.logs.glob("main.stdout*"))
    assert files == ["main.stdout", "main.stdout.1", "main.stdout.2"]
    for name in files:
        text = container.log(name)
        assert 0 < len(text) <= 1000 and text.endswith("\n")
    lines = [int(line) for line in read(container, files_max=3).split()]
    assert lines == list(range(lines[0], 2001))


def test_output_of_the_previous_run_is_found_in_rotated_files(launch, spec):
    container = launch(log_bytes_max=3000, log_files_max=5)
    rule = RestartSpec(policy="on-failure", attempts=1, delay=0.05)
    container.order(spec("echo x >> n; k=$(wc -l < n); seq -f run$k.%g 1 300; exit 1", restart=rule))
    container.until_task(lambda task: task.state == TaskState.FAILED and task.restarts == 1)
    assert read(container, back=1).split() == [f"run1.{n}" for n in range(1, 301)]
    assert read(container, back=0).split() == [f"run2.{n}" for n in range(1, 301)]
    assert (container.logs / "main.stdout.1").exists()


def test_line_longer_than_a_file_is_cut_and_nothing_is_lost(launch, spec):
    container = launch(log_bytes_max=1000, log_files_max=5)
    container.order(spec("printf %02500d 7; exit 1", restart=RestartSpec(policy="never")))
    container.until_task(lambda task: task.state == TaskState.FAILED)
    assert read(container) == f"{7:02500d}"
