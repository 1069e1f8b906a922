"""Parts of one release take over from, and work with, parts of the previous and the next release."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from galaxy.cli.local import leftovers
from galaxy.driver.stored_format import STORED_FORMAT
from tests.support import releases
from tests.support.parts import Parts, parent, release_of, witness
from tests.support.waiting import until

TOO_FAR_APART = "sender and receiver are too far apart"


def test_newer_agent_and_launcher_take_over_the_containers_of_older_ones(
    mixed: Parts, tmp_path: Path
) -> None:
    old, new = releases.older(tmp_path / "old"), releases.newer(tmp_path / "new")
    for part in ("resman", "appmaster", "agent"):
        mixed.start(part, old)
    before = mixed.run(witness("kept"))
    pids = {pod.index: pod.pid for pod in before}
    launcher = parent(pids[0])
    assert release_of(launcher) == str(old)

    mixed.stop("agent")
    mixed.start("agent", new)
    until("the launcher has the newer release", lambda: release_of(launcher) == str(new))
    assert [parent(pid) for pid in pids.values()] == [launcher] * 2
    seen = mixed.counts("kept")
    until("all still count", lambda: all(len(n) > len(seen[k]) for k, n in mixed.counts("kept").items()))
    assert all(_is_gapless(lines) for lines in mixed.counts("kept").values())

    # Every operation works with AppWorkers of the older release.
    assert mixed.cli("exec", before[0].pod, "--", "echo", "hello") == "hello\n"
    assert len(mixed.cli("logs", "kept", "--pod", "0", "--tail", "3").splitlines()) == 3
    updated = mixed.run(witness("kept", env={"GREETING": "2"}))
    assert {pod.index: pod.pid for pod in updated} == pids
    mixed.change("stop", "kept")
    until("it stopped", lambda: {pod.state for pod in mixed.pods("kept")} == {"stopped"})
    mixed.change("start", "kept")
    until("it has settled", lambda: mixed.job("kept").settled)
    assert {pod.index: pod.pid for pod in mixed.pods("kept")} == pids

    # The launcher learns how an old container ends, because it is still the same process.
    os.kill(pids[0], signal.SIGKILL)
    moved = until(
        "a new container", lambda: [p for p in mixed.pods("kept") if p.pid not in (0, *pids.values())]
    )
    until("it has settled", lambda: mixed.job("kept").settled)
    assert any("killed by signal 9" in text for _, text in mixed.events(before[0].pod))
    assert parent(moved[0].pid) == launcher
    mixed.change("remove", "kept")
    until("nothing is left", lambda: not list((mixed.state / "h1/c").iterdir()))


def test_older_release_takes_over_again_from_a_newer_one(mixed: Parts, tmp_path: Path) -> None:
    old, new = releases.older(tmp_path / "old"), releases.newer(tmp_path / "new")
    mixed.start("agent", old)
    for part in ("resman", "appmaster"):
        mixed.start(part, new)  # Their orders have fields that the older agent does not know.
    pids = [pod.pid for pod in mixed.run(witness("kept"))]
    mixed.run(witness("kept", env={"GREETING": "2"}))
    mixed.stop("agent")
    mixed.start("agent", new)
    until("newer AppWorkers run", lambda: release_of(parent(pids[0])) == str(new))
    mixed.run(witness("second"))
    for part in ("agent", "resman", "appmaster"):
        mixed.stop(part)
        mixed.start(part, old)  # Its state on disk and in Redis was written by the newer release.
        until("both have settled", lambda: mixed.job("kept").settled and mixed.job("second").settled)
    until("the launcher has the older release", lambda: release_of(parent(pids[0])) == str(old))
    assert [pod.pid for pod in mixed.run(witness("kept", env={"GREETING": "3"}))] == pids
    mixed.run(witness("second", env={"GREETING": "3"}))
    assert {key[-1] for key in mixed.counts("second")} == {"1"}, "a container was replaced"
    for name in ("kept", "second"):
        mixed.change("remove", name)
    until("nothing is left", lambda: not list((mixed.state / "h1/c").iterdir()))


def test_release_without_a_common_version_is_refused_with_a_reason_and_changes_nothing(
    mixed: Parts, tmp_path: Path
) -> None:
    ours, far = releases.older(tmp_path / "ours"), releases.incompatible(tmp_path / "far")
    for part in ("resman", "appmaster", "agent"):
        mixed.start(part, ours)
    pods = mixed.run(witness("kept"))
    mixed.stop("agent")

    mixed.start("agent", far, name="far")
    texts = until(
        "it is refused", lambda: [text for kind, text in mixed.events("far") if kind == "agent.refused"]
    )
    assert len(texts) == 1
    assert TOO_FAR_APART in texts[0]
    (listed,) = mixed.ask(lambda galaxy: galaxy.agent_list()).refused
    assert listed.message.startswith("far: ") and TOO_FAR_APART in listed.message
    assert mixed.ask(lambda galaxy: galaxy.status()).refused == (listed,)
    mixed.stop("agent")

    mixed.start("agent", far)  # It has the same state, but cannot use the AppWorkers, which continue.
    until("AppWorkers are refused", lambda: TOO_FAR_APART in mixed.log("agent").read_text())
    mixed.stop("agent")
    mixed.start("agent", ours)
    assert [pod.pid for pod in mixed.run(witness("kept", env={"GREETING": "2"}))] == [p.pid for p in pods]
    assert all(_is_gapless(lines[: len(lines) // 3]) for lines in mixed.counts("kept").values())

    mixed.stop("resman")
    mixed.start("resman", far)
    until(
        "it does not lead",
        lambda: (
            f"cannot lead resman: its state in Redis has format {STORED_FORMAT}"
            in mixed.log("resman").read_text()
        ),
    )
    mixed.stop("resman")
    mixed.start("resman", ours)
    mixed.run(witness("kept", env={"GREETING": "3"}))
    mixed.end()
    assert not leftovers.remove(mixed.folder, [f"{mixed.root}-h1", f"{mixed.root}-far"])


def _is_gapless(lines: list[tuple[int, int]]) -> bool:
    """Return whether one program alone wrote ``lines``, without leaving a number out."""
    return len({pid for pid, _ in lines}) == 1 and [n for _, n in lines] == list(range(1, len(lines) + 1))
