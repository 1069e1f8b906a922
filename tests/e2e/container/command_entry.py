"""PID 1 for tests: runs the commands that it receives on the container's socket in a task's cgroup."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
from typing import NoReturn

from galaxy.container.kernel import prctl, syscalls
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig

PACKET = 128 * 1024


def run(config: WorkerConfig) -> NoReturn:
    """Serve one connection at a time: ``{"argv", "task", "wait"}`` in, ``{"status", "out"}`` out."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
    listener = socket.socket(fileno=config.listen_fd)
    listener.setblocking(True)
    while True:
        client, _ = listener.accept()
        while packet := client.recv(PACKET):
            order = json.loads(packet)
            client.send(json.dumps(_handle(config, order)).encode())
        client.close()


def _handle(config: WorkerConfig, order: dict) -> dict:
    if "exit" in order:
        os._exit(order["exit"])
    if "config" in order:
        return {
            "workspace": config.workspace,
            "ports": config.ports,
            "fds": sorted(os.listdir("/proc/self/fd")),
        }
    if "oom" in order:
        return {"oom": os.pread(_task(config, order["oom"]).oom_fd, 4096, 0).decode()}
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _exec(config, _task(config, order["task"]), write, order)
        finally:
            os._exit(99)
    os.close(write)
    if not order.get("wait", True):
        os.close(read)
        return {"pid": pid}
    out = bytearray()
    while chunk := os.read(read, 65536):
        out += chunk
    os.close(read)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return {
                "status": os.waitstatus_to_exitcode(status),
                "out": bytes(out[-60000:]).decode(errors="replace"),
            }


def _exec(config: WorkerConfig, task: TaskCgroup, write: int, order: dict) -> NoReturn:
    for fd in task.procs_fds:
        os.write(fd, b"0")
    os.dup2(write, 1)
    os.dup2(write, 2)
    syscalls.close_all_but((0, 1, 2))
    os.setsid()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if config.run_uid >= 0:
        os.setgroups(())
        os.setresgid(config.run_gid, config.run_gid, config.run_gid)
        os.setresuid(config.run_uid, config.run_uid, config.run_uid)
    os.chdir(config.workspace)
    if config.seccomp and not order.get("unfiltered"):
        prctl.SeccompFilter(base64.b64decode(config.seccomp_program)).install()
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GALAXY_WORKSPACE": config.workspace}
    os.execve(order["argv"][0], order["argv"], env)


def _task(config: WorkerConfig, name: str) -> TaskCgroup:
    return next(task for task in config.tasks if task.name == name)
