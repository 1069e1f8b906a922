"""The command lines about machines: the hosts and labels that they name, and what they print of a drain."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from galaxy.cli.cluster.agent_changes import read_labels
from galaxy.cli.cluster.agents import drain_text
from galaxy.cli.cluster.drain import _lines, _print_plan
from galaxy.cli.cluster.host_arguments import FILE_BYTES_MAX, all_hosts
from galaxy.cli.cluster.pools import _states
from galaxy.cli.output import Output
from galaxy.cli.tables import agent_state_text
from galaxy.errors import UsageError
from galaxy.model.api.drains import DrainList, DrainPlan, DrainView, LeavingView, PlannedMove
from galaxy.model.api.machines import HOSTS_MAX, PoolView
from galaxy.model.api.views import AgentView
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.agent import Drain, Mark

HOSTILE = "x\x1b[2J\r\nh2: no container is left"


def agent(**changes: object) -> AgentView:
    info = AgentInfo(
        agent="h1", address="a", boot="b", version="1", cpu_milli=1, memory_bytes=1, disk_bytes=1
    )
    return AgentView(agent="h1", state=AgentState.ALIVE, info=info, **changes)  # type: ignore[arg-type]


def test_hosts_come_from_arguments_and_files_each_once(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("h2 h1 # the first two\n\n# none here\n  h3\n")
    assert all_hosts(["h1"], [str(file)]) == ("h1", "h2", "h3")


def test_hosts_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("h4\nh5"))
    assert all_hosts([], ["-"]) == ("h4", "h5")


def test_no_host_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# empty\n")
    with pytest.raises(UsageError, match="no host is named"):
        all_hosts([], [str(tmp_path / "hosts")])


def test_too_many_hosts_are_wrong_usage_with_the_limit() -> None:
    with pytest.raises(UsageError) as caught:
        all_hosts([f"h{n}" for n in range(HOSTS_MAX + 1)], [])
    assert f"{HOSTS_MAX:,} at most" in str(caught.value)


@pytest.mark.parametrize("name", ["-h1", "h 1", "h1\n", "a" * 64, "h/1"])
def test_malformed_name_of_a_host_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a host"):
        all_hosts([name], [])


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        all_hosts([], [str(tmp_path / "none")])
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        all_hosts([], [str(tmp_path / "binary")])
    (tmp_path / "long").write_text("h1\n" * (FILE_BYTES_MAX // 2))
    with pytest.raises(UsageError, match="too long"):
        all_hosts([], [str(tmp_path / "long")])


def test_states_of_a_pool_count_hosts_that_have_not_joined() -> None:
    assert _states(PoolView(pool="far", agents={"alive": 2}, registered=1)) == "2 alive, 1 registered"
    assert _states(PoolView(pool="far")) == "-"


def test_labels_are_set_and_removed() -> None:
    assert read_labels(["rack=r1", "zone-", "image=a=b"]) == ({"rack": "r1", "image": "a=b"}, ("zone",))


@pytest.mark.parametrize("words", [["rack="], ["=r1"], ["rack"], ["a=1", "a=2"], ["a=1", "a-"]])
def test_malformed_labels_are_wrong_usage(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_labels(words)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "alive"),
        ({"cordon": Mark(by="a", at_s=1)}, "alive, cordoned"),
        ({"drain": Drain(by="a", at_s=1)}, "alive, draining"),
        ({"drain": Drain(by="a", at_s=1, done_s=2)}, "alive, drained"),
        ({"drain": Drain(by="a", at_s=1, offline=True)}, "alive, going offline"),
        ({"drain": Drain(by="a", at_s=1, offline=True, done_s=2)}, "alive, offline"),
        ({"trouble": "disk"}, "alive, in trouble"),
    ],
)
def test_state_of_an_agent_says_whether_it_takes_containers(changes: dict[str, object], text: str) -> None:
    assert agent_state_text(agent(**changes)) == text


@pytest.mark.parametrize(
    ("drain", "text"),
    [
        (Drain(by="ann", at_s=90, reason="disk"), "by ann 10s ago: disk; without a deadline"),
        (Drain(by="ann", at_s=90, until_s=160), "by ann 10s ago; containers are evicted in 1m"),
        (
            Drain(by="ann", at_s=90, until_s=95),
            "by ann 10s ago; the deadline is over, containers are evicted",
        ),
        (Drain(by="ann", at_s=90, force=True), "by ann 10s ago; containers are evicted"),
        (Drain(by="ann", at_s=90, done_s=95), "by ann 10s ago; empty for 5s"),
    ],
)
def test_drain_says_who_when_why_and_until_when(drain: Drain, text: str) -> None:
    assert drain_text(drain, 100.0) == text


def test_lines_of_a_drain_say_what_each_container_waits_for() -> None:
    left = (
        LeavingView(container="web.0", job="web", state=ContainerState.READY, to="h2"),
        LeavingView(
            container="db.0", job="db", state=ContainerState.READY, reason=Reason(code="x", message="no room")
        ),
        LeavingView(container="old.1", job="old", state=ContainerState.DESTROYING),
    )
    view = DrainView(agent="h1", state=AgentState.ALIVE, drain=Drain(by="a", at_s=1), containers=3, left=left)
    waits = {"web.0": "h1 is drained by a; it waits for its turn"}
    assert list(_lines(DrainList(drains=(view,)), waits)) == [
        "h1: 3 containers left",
        "h1: web.0 it waits for its turn",
        "h1: db.0 no room",
        "h1: old.1 is being destroyed",
    ]


@pytest.mark.parametrize(("code", "told"), [("operator", True), ("start", False)])
def test_plan_of_a_drain_says_that_nothing_leaves_in_safe_mode(
    code: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    move = PlannedMove(container="web-1.0", job="web-1", agent="h1", to="h2")
    reason = Reason(code=code, message="safe mode: by ann")
    _print_plan(Output(), DrainPlan(moves=(move,), safe_mode=reason))
    assert ("nothing leaves: safe mode: by ann" in capsys.readouterr().err) is told


def test_text_of_others_cannot_add_lines_to_those_of_a_drain() -> None:
    reason = Reason(code="x", message=HOSTILE)
    left = (LeavingView(container=HOSTILE, job="x", state=ContainerState.READY, reason=reason),)
    view = DrainView(agent="h1", state=AgentState.ALIVE, drain=Drain(by="a", at_s=1), containers=1, left=left)
    lines = list(_lines(DrainList(drains=(view,), safe_mode=reason), {"": HOSTILE}))
    assert all(line.isprintable() for line in lines)
