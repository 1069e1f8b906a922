"""With the seccomp filter of a real container ordinary programs run; calls that affect the host fail."""

from __future__ import annotations

import json
import platform

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls have the numbers of x86_64"),
]

THREADS = """
import threading
results = []
threads = [threading.Thread(target=lambda n=n: results.append(sum(range(n)))) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(results))
"""
SUBPROCESSES = """
import os, subprocess
print(subprocess.run(["/bin/echo", "spawned"], capture_output=True, text=True, check=True).stdout.strip())
print(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]))
"""
ASYNC = """
import asyncio
async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    print((await reader.read()).decode().strip())
    child = await asyncio.create_subprocess_exec("/bin/echo", "child", stdout=asyncio.subprocess.PIPE)
    print((await child.communicate())[0].decode().strip())
asyncio.run(main())
"""
SHARED_MEMORY = """
import mmap, multiprocessing, os, signal, tempfile
with tempfile.TemporaryFile() as file:
    file.write(b"x" * 4096); file.flush()
    print(mmap.mmap(file.fileno(), 4096)[:1].decode())
fd = os.memfd_create("m"); os.write(fd, b"y"); print(os.pread(fd, 1, 0).decode())
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(sum(pool.map(abs, range(-3, 3))))
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.pause()
print(len(os.sched_getaffinity(0)) > 0)
"""
CALLS = {
    "keyctl": (250, 0, -3, 1), "add_key": (248, 0, 0, 0, 0, -3), "bpf": (321, 0, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0), "unshare": (272, 0x10000000), "setns": (308, -1, 0),
    "userfaultfd": (323, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "ptrace": (101, 0, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "kexec_load": (246, 0, 0, 0, 0), "iopl": (172, 3),
    "open_by_handle_at": (304, -100, 0, 0), "name_to_handle_at": (303, -100, 0, 0, 0, 0),
    "move_pages": (279, 0, 0, 0, 0, 0, 0), "personality without random addresses": (135, 0x0040000),
    "clone3": (435, 0, 0), "io_uring_setup": (425, 1, 0), "call of a later kernel": (480, 0),
    "no such call": (100000, 0), "number in a gap": (400, 0),
}  # fmt: skip
ENOSYS = {"clone3", "io_uring_setup", "call of a later kernel", "no such call", "number in a gap"}
ATTEMPTS = """
import ctypes, errno, json, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, (number, *arguments) in json.loads(sys.argv[1]).items():
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments])
    found[name] = "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def plan(launcher):
    plan = launcher.plan(task={"memory_bytes": 128 << 20, "pids_max": 64, "cpu_milli": 1000})
    launcher.launch(plan)
    yield plan
    launcher.clear()


@pytest.mark.parametrize(
    ("script", "output"),
    [
        pytest.param(THREADS, ["8"], id="threads"),
        pytest.param(SUBPROCESSES, ["spawned", "0"], id="subprocesses"),
        pytest.param(SHARED_MEMORY, ["x", "y", "9", "True"], id="shared memory, pools and timers"),
    ],
)
def test_python_program_runs_with_the_filter(launcher, plan, script: str, output: list[str]) -> None:
    assert launcher.python(plan, script)["out"].split() == output


def test_asyncio_with_sockets_and_children_runs_with_the_filter(launcher, plan) -> None:
    assert launcher.python(plan, ASYNC)["out"].split() == ["HELLO", "child"]


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("printf 'b\\na\\n' | sort | tr -d '\\n'", "ab"),
        ("mkdir d && echo x > d/f && ln d/f d/g && tar cf a d && rm -r d && tar xf a && cat d/g", "x\n"),
        ("seq 200000 | sort -R | sort -n | tail -1", "200000\n"),
        ("ls -l /proc/self/exe > l && df / > l && find /etc -maxdepth 1 > l && echo ok", "ok\n"),
        ("sleep 0.01 & wait; touch -d yesterday t; cp -a t u; mv u v; chmod 600 v; stat -c %a v", "600\n"),
        ("timeout 5 sh -c 'trap \"echo term\" TERM; kill -TERM $$'", "term\n"),
        ("perl -e 'print 6*7'", "42"),
    ],
)  # fmt: skip
def test_tools_of_the_shell_run_with_the_filter(launcher, plan, script: str, output: str) -> None:
    assert launcher.sh(plan, script) == {"status": 0, "out": output}


def test_calls_outside_the_allow_list_fail_with_eperm_and_unknown_ones_with_enosys(launcher, plan) -> None:
    argv = ["/usr/bin/python3", "-I", "-S", "-c", ATTEMPTS, json.dumps(CALLS)]
    found = json.loads(launcher.ask(plan, task="web", argv=argv)["out"])
    assert found == {name: "ENOSYS" if name in ENOSYS else "EPERM" for name in CALLS}
