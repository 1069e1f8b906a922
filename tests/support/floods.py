"""Programs that each exhaust one resource until they are killed."""

from __future__ import annotations

from typing import Final

FLOODS: Final[dict[str, str]] = {
    "cpu": """
import os
for n in range(8):
    if os.fork() == 0:
        break
print("flooding", flush=True)
while True:
    sum(range(100000))
""",
    "forks": """
import os
print("flooding", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "memory": """
import os
print("flooding", flush=True)
while True:
    pid = os.fork()
    if pid == 0:
        blocks = []
        while True:
            blocks.append(bytearray(b"x") * (4 << 20))
    os.waitpid(pid, 0)
    print("killed", flush=True)
""",
    "disk": """
import os
print("flooding", flush=True)
block = b"x" * (1 << 20)
while True:
    fd = os.open("big", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        while True:
            os.write(fd, block)
    except OSError as error:
        print(error.strerror, flush=True)
    os.close(fd)
""",
    "inodes": """
import itertools, os
print("flooding", flush=True)
for turn in itertools.count():
    try:
        for n in itertools.count():
            os.close(os.open("i%d" % n, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        print(error.strerror, flush=True)
    for name in os.listdir("."):
        os.unlink(name)
""",
    "logs": """
import os
line = (b"flooding " + b"y" * 90 + b"\\n") * 600
while True:
    os.write(1, line)
    os.write(2, line)
""",
    "zombies": """
import os
print("flooding", flush=True)
while True:
    try:
        if os.fork() == 0:
            try:
                os.fork()
            finally:
                os._exit(0)
        os.wait()
    except OSError:
        pass
""",
    "connections": """
import socket
print("flooding", flush=True)
while True:
    sockets = []
    for n in range(200):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 1))
        sockets.append(sock)
    for sock in sockets:
        sock.close()
""",
}
"""By the resource they exhaust. Each prints ``flooding`` first; "connections" go to a closed port."""
