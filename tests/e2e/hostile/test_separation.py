"""A program cannot reach other containers, the agent or Redis through files, memory or the network."""

from __future__ import annotations

import json
import socket
import uuid
from urllib.parse import urlsplit

import pytest

from galaxy.errors import GalaxyError
from galaxy.model.messages.container import ObservedContainerState
from galaxy.nexus.nexus import Nexus
from tests.e2e.agent.harness import one_agent, pod_order, task
from tests.support.hostile import quoted
from tests.support.waiting import until

CREATE = (
    "echo mine > /tmp/left; echo mine > /dev/shm/left; echo mine > left; "
    "ipcmk -M 4096 > /dev/null; ipcs -m | grep -c 0x"
)
LIST = "cat /tmp/left /dev/shm/left left 2>/dev/null; ipcs -m | grep -c 0x"

PROBE = """
import json, os, socket, sys
about = json.loads(os.environ["ABOUT"])
found = {}
def ask(host, port, text):
    try:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(text)
            return sock.recv(4096).decode(errors="replace")
    except OSError as error:
        return type(error).__name__
found["get"] = ask("127.0.0.1", about["port"], b"KEYS *\\r\\n")
found["config"] = ask("127.0.0.1", about["port"], b"CONFIG GET *\\r\\n")
found["files"] = [path for path in about["paths"] if os.path.lexists(path)]
found["environ"] = [name for name, value in os.environ.items() if "sesame" in value or "redis" in value]
found["secrets"] = []
for name in os.listdir("/proc"):
    if name.isdecimal():
        for what in ("cmdline", "environ"):
            try:
                data = open("/proc/%s/%s" % (name, what), "rb").read()
            except OSError:
                continue
            if b"-".join((b"open", b"sesame")) in data:
                found["secrets"].append(name)
reached = []
for line in open("/proc/net/unix"):
    path = line.split(None, 7)[7].strip() if len(line.split(None, 7)) == 8 else ""
    if "sock" in path and "/" in path:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            try:
                with socket.socket(socket.AF_UNIX, kind) as sock:
                    sock.connect(path)
                reached.append(path)
            except OSError:
                pass
found["sockets"] = reached
print(json.dumps(found), flush=True)
import time
time.sleep(1000)
"""


def test_files_and_shared_memory_of_a_container_are_invisible_to_another(host) -> None:
    one, other = host.container("one"), host.container("other")
    assert one.sh(CREATE)[1].split()[-1] == "1"
    assert one.sh(LIST)[1].split() == ["mine", "mine", "mine", "1"]
    assert other.sh(LIST)[1].split() == ["0"]
    one.destroy()
    other.destroy()


def test_private_network_reaches_neither_the_host_nor_its_abstract_sockets(host) -> None:
    name = f"\0galaxy-test-{uuid.uuid4().hex}"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        abstract.bind(name)
        abstract.listen()
        script = (
            "import json, socket, sys\nfound = []\n"
            "for family, address in ((socket.AF_INET, ('127.0.0.1', int(sys.argv[1]))),"
            " (socket.AF_UNIX, '\\0' + sys.argv[2])):\n"
            " try: socket.socket(family).connect(address); found.append('reached')\n"
            " except OSError as error: found.append(type(error).__name__)\n"
            "print(json.dumps(found))"
        )
        arguments = (str(tcp.getsockname()[1]), name[1:])
        private = host.container("private", network="private")
        assert private.facts(script, *arguments) == ["ConnectionRefusedError"] * 2
        shared = host.container("shared")
        # On the host's network a program reaches what any local process reaches: services need passwords.
        assert shared.facts(script, *arguments) == ["reached"] * 2
    private.destroy()
    shared.destroy()


@pytest.fixture
def agent(locked_redis_server):
    with one_agent(locked_redis_server.url) as agent:
        yield agent


def test_program_under_a_real_agent_cannot_use_redis_the_agents_state_or_its_sockets(agent) -> None:
    pod = "evil-000001.0"
    agent.create(pod)
    agent.create("other-000001.0")
    agent.await_state(pod, ObservedContainerState.READY)
    agent.await_state("other-000001.0", ObservedContainerState.READY)
    places = [
        agent.folder,
        agent.state,
        *agent.state.iterdir(),
        *(agent.state / "c").iterdir(),
        agent.packages,
    ]
    about = {"port": urlsplit(agent.url).port, "paths": [str(path) for path in places]}
    with pytest.raises(GalaxyError):
        Nexus.connect(f"redis://127.0.0.1:{about['port']}/0", name="thief").close()
    agent.deploy(pod_order(pod, task(f"ABOUT='{json.dumps(about)}'; export ABOUT; " + quoted(PROBE))))
    agent.await_pod(pod, "running")
    log = agent.state / "logs" / f"{pod}_1" / "main.stdout"
    agent_log: list[str] = []

    def written() -> bool:
        agent_log[:] = [log.read_text() if log.exists() else ""]
        return agent_log[0].endswith("}\n")

    until("the probe has finished", written)
    found = json.loads(agent_log[0])
    assert found["get"].startswith("-NOAUTH") and found["config"].startswith("-NOAUTH")
    assert found["files"] == found["environ"] == found["secrets"] == found["sockets"] == []
    for one in (pod, "other-000001.0"):
        agent.destroy(one)
        agent.await_state(one, ObservedContainerState.GONE)
