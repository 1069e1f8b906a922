"""A small web service that answers with a greeting and the names of its pod and host.

It uses only the standard library. Galaxy passes the port in ``GALAXY_PORT_HTTP`` and the names in
``GALAXY_POD_ID`` and ``GALAXY_HOST``. On SIGTERM it finishes the requests that it has accepted before
it exits, so a rollout loses no request.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1.0.0"


class Hello(BaseHTTPRequestHandler):
    """Answers ``/`` with a greeting and ``/health`` with 200."""

    timeout = 10

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {"healthy": True})
        elif self.path == "/":
            self.answer(200, greeting())
        else:
            self.answer(404, {"error": f"nothing at {self.path}"})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.path != "/health":
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    """Serves each request in a thread; ``server_close`` waits for all of them."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def finish_accepted(self) -> None:
        """Serve the connections that the kernel accepted before the server stopped."""
        self.timeout = 0
        self.waiting = True
        while self.waiting:
            self.handle_request()

    def handle_timeout(self) -> None:
        self.waiting = False


def greeting() -> dict[str, object]:
    return {
        "hello": os.environ.get("HELLO_NAME", "world"),
        "pod": os.environ.get("GALAXY_POD_ID", ""),
        "host": os.environ.get("GALAXY_HOST", ""),
        "version": VERSION,
        "pid": os.getpid(),
    }


def main() -> None:
    server = Server(("", int(os.environ.get("GALAXY_PORT_HTTP", "8080"))), Hello)

    def stop(*_: object) -> None:
        # shutdown() waits for the loop of this thread, so another thread must call it.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"hello {VERSION} listens on port {server.server_address[1]}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.finish_accepted()
    server.server_close()
    print("hello has finished its requests and ends", flush=True)


if __name__ == "__main__":
    main()
