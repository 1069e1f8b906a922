"""Which cluster is meant: the file a running cluster leaves in its folder, and the contexts of a user.

A cluster on this host keeps ``cluster.json`` in its folder while it runs; a user's
``contexts.json`` remembers clusters by name, and which one was started or chosen last. Both
hold a password, so both are readable by their owner only, and are replaced, never rewritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from galaxy.errors import BadMessage, GalaxyError, NotFound, UsageError
from galaxy.model.base import Struct, decode, encode

CLUSTER_FILE: Final = "cluster.json"
CONTEXTS_MAX: Final = 100
"""A user's contexts at most; the oldest makes way."""

T = TypeVar("T", bound=Struct)


class ProcessRef(Struct, frozen=True, kw_only=True):
    """A process of ours. ``start_ticks`` (field 22 of /proc/PID/stat) tells it from a later one."""

    name: str
    pid: int
    start_ticks: int


class ClusterFile(Struct, frozen=True, kw_only=True):
    """``cluster.json``: how to reach the cluster that runs in ``dir``, and what it runs.

    ``url`` is Redis' with the login of clients; ``flower`` is the address a browser opens;
    ``started_s`` is Unix seconds; ``mode`` is the agent's, ``full`` or a lesser one.
    """

    dir: str
    url: str
    flower: str = ""
    mode: str = "full"
    started_s: float = 0.0
    version: str = ""
    server: str = ""
    """Where the server came from: ``configured``, ``redis``, ``valkey`` or ``embedded``."""
    detached: bool = False
    secret: str = ""
    """What the passwords of all logins derive from; empty when the server is somebody else's."""
    token: str = ""
    """``USER:SECRET`` of whoever started it, who is its first operator."""
    processes: tuple[ProcessRef, ...] = ()


class Context(Struct, frozen=True, kw_only=True):
    """A cluster by name: one on this host by its folder, any other by its URL and a token."""

    name: str
    dir: str = ""
    url: str = ""
    token: str = ""


class Contexts(Struct, frozen=True, kw_only=True):
    """``contexts.json``, oldest first."""

    current: str = ""
    contexts: tuple[Context, ...] = ()

    def named(self, name: str) -> Context | None:
        """Return the context of that name, if there is one."""
        return next((context for context in self.contexts if context.name == name), None)


class Found(Struct, frozen=True, kw_only=True):
    """The cluster that is meant; ``because`` says who named it, ``dir`` is empty for a remote one.

    ``token`` is what requests are signed with, ``USER:SECRET``; GALAXY_TOKEN comes first.
    """

    url: str
    because: str
    dir: str = ""
    token: str = ""


def login_url(url: str, secret: str, role: str, host: str = "") -> str:
    """Return ``url`` with the login of ``role`` in place of whatever login it has; see ``nexus.acl``."""
    from galaxy.nexus import acl

    scheme, split, rest = url.partition("://")
    user = acl.login(role, host)
    where, slash, query = re.split(r"([/?]|$)", rest, maxsplit=1)
    return f"{scheme}{split}{user}:{acl.password(secret, user)}@{where.rpartition('@')[2]}{slash}{query}"


def join(role: str, host: str = "", *, url: str = "", dir: str = "") -> str:
    """Return the URL by which a process of ``role`` joins: ``url``, GALAXY_REDIS, or the folder's.

    In a folder of ``galaxy up`` every role has a login of its own; an agent's is made if need be.

    Raises:
        NotFound: no cluster is named, or it does not run. Unreachable: its server does not answer.
    """
    from galaxy.nexus import Nexus, acl

    named = url or os.environ.get("GALAXY_REDIS", "")
    if named:
        return named
    found = find(dir=dir)
    cluster = read_cluster(found.dir) if found.dir else None
    if cluster is None or not cluster.secret:
        return found.url
    if role == acl.AGENT:
        with Nexus.connect(login_url(cluster.url, cluster.secret, acl.ADMIN), name="galaxy-join") as nexus:
            nexus.make_login(role, cluster.secret, host)
    return login_url(cluster.url, cluster.secret, role, host)


def default_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the cluster that ``galaxy up`` starts when nobody names one."""
    if os.geteuid() == 0:
        return Path("/var/lib/galaxy")
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "galaxy"


def contexts_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's contexts are kept (XDG base directories)."""
    config = environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config else Path.home() / ".config") / "galaxy" / "contexts.json"


def read_cluster(directory: Path | str) -> ClusterFile | None:
    """Return what runs in ``directory`` by its own word, or None when it says nothing.

    Raises:
        GalaxyError: the file is there and cannot be read.
    """
    return _read(Path(directory) / CLUSTER_FILE, ClusterFile)


def write_cluster(cluster: ClusterFile) -> None:
    """Write ``cluster.json`` into the cluster's folder, all or nothing, for its owner only."""
    _write(Path(cluster.dir) / CLUSTER_FILE, cluster)


def remove_cluster(directory: Path | str) -> None:
    """Take ``cluster.json`` away; that it is not there is no error."""
    (Path(directory) / CLUSTER_FILE).unlink(missing_ok=True)


def load_contexts(path: Path | None = None) -> Contexts:
    """Return the user's contexts; none when the file is not there.

    Raises:
        GalaxyError: the file is there and cannot be read.
    """
    return _read(path or contexts_path(), Contexts) or Contexts()


def remember(
    *, dir: Path | str = "", url: str = "", name: str = "", token: str = "", path: Path | None = None
) -> Context:
    """Keep a cluster under ``name`` and make it the current one.

    A cluster that is known already keeps its name; without a name one is made of the folder's
    or the host's.
    """
    where = path or contexts_path()
    folder = str(Path(dir).absolute()) if dir else ""
    with _locked(where):
        known = load_contexts(where)
        same = (folder, "" if folder else url)
        old = next((c for c in known.contexts if (c.dir, c.url) == same), None)
        chosen = name or (old.name if old else _free_name(known, folder, url))
        context = Context(name=chosen, dir=folder, url="" if folder else url, token=token)
        others = tuple(c for c in known.contexts if c.name != chosen and c is not old)
        kept = (*others, context)[-CONTEXTS_MAX:]
        _write(where, Contexts(current=chosen, contexts=kept))
    return context


def use(name: str, path: Path | None = None) -> Context:
    """Make the context ``name`` the current one.

    Raises:
        NotFound: there is none of that name.
    """
    where = path or contexts_path()
    with _locked(where):
        known = load_contexts(where)
        context = known.named(name)
        if context is None:
            names = ", ".join(c.name for c in known.contexts) or "none"
            raise NotFound(f'no context "{name}"', details=[f"known: {names}"], hint="galaxy context list")
        _write(where, Contexts(current=name, contexts=known.contexts))
    return context


def forget(*, dir: Path | str = "", name: str = "", path: Path | None = None) -> None:
    """Drop a context by folder or name; the newest of the rest becomes current if it was."""
    where = path or contexts_path()
    folder = str(Path(dir).absolute()) if dir else ""
    with _locked(where):
        known = load_contexts(where)
        kept = tuple(c for c in known.contexts if not (c.name == name or (folder and c.dir == folder)))
        if len(kept) == len(known.contexts):
            return
        still = any(c.name == known.current for c in kept)
        current = known.current if still else (kept[-1].name if kept else "")
        _write(where, Contexts(current=current, contexts=kept))


def find(
    *,
    url: str = "",
    dir: Path | str = "",
    context: str = "",
    environ: Mapping[str, str] = os.environ,
    path: Path | None = None,
) -> Found:
    """Return the cluster that is meant: argument, then GALAXY_REDIS, GALAXY_DIR, then the last context.

    Raises:
        UsageError: more than one argument names a cluster.
        NotFound: nobody names one, or what is named does not run.
    """
    found = _find(url, dir, context, environ, path)
    token = environ.get("GALAXY_TOKEN", "")
    return Found(url=found.url, because=found.because, dir=found.dir, token=token or found.token)


def _find(url: str, dir: Path | str, context: str, environ: Mapping[str, str], path: Path | None) -> Found:
    if sum(map(bool, (url, dir, context))) > 1:
        raise UsageError("more than one cluster named", hint="give one of a URL, a folder, a context")
    if url:
        return Found(url=url, because="the URL given")
    if dir:
        return _in_folder(dir, f"folder {dir}")
    if context:
        known = load_contexts(path).named(context)
        if known is None:
            raise NotFound(f'no context "{context}"', hint="galaxy context list")
        return _of(known)
    if environ.get("GALAXY_REDIS"):
        return Found(url=environ["GALAXY_REDIS"], because="GALAXY_REDIS")
    if environ.get("GALAXY_DIR"):
        return _in_folder(environ["GALAXY_DIR"], "GALAXY_DIR")
    contexts = load_contexts(path)
    last = contexts.named(contexts.current)
    if last is not None:
        return _of(last)
    cluster = read_cluster(default_dir(environ)) if _readable(default_dir(environ)) else None
    if cluster is not None:
        return Found(url=cluster.url, dir=cluster.dir, because=f"folder {cluster.dir}", token=cluster.token)
    raise NotFound(
        "no cluster is known here",
        details=["neither --redis, --dir, --context, GALAXY_REDIS, GALAXY_DIR nor a context names one"],
        hint="galaxy up --detach",
    )


def _of(context: Context) -> Found:
    if context.dir:
        return _in_folder(context.dir, f'context "{context.name}"')
    return Found(url=context.url, because=f'context "{context.name}"', token=context.token)


def _in_folder(directory: Path | str, because: str) -> Found:
    folder = Path(directory).absolute()
    cluster = read_cluster(folder)
    if cluster is None:
        raise NotFound(
            f"no cluster runs in {folder}", details=[f"named by {because}"], hint=f"galaxy up --dir {folder}"
        )
    return Found(url=cluster.url, dir=str(folder), because=because, token=cluster.token)


def _readable(directory: Path) -> bool:
    return os.access(directory / CLUSTER_FILE, os.R_OK)


def _free_name(known: Contexts, folder: str, url: str) -> str:
    if folder == str(default_dir()):
        base = "default"
    elif folder:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(folder).name).strip("-.") or "cluster"
    else:
        host = re.sub(r"^[a-z+]+://(?:[^@/]*@)?", "", url).split("/")[0].split(":")[0]
        base = re.sub(r"[^A-Za-z0-9_.-]+", "-", host).strip("-.") or "cluster"
    names = {context.name for context in known.contexts}
    candidates = (base if n == 1 else f"{base}-{n}" for n in range(1, len(names) + 2))
    return next(name for name in candidates if name not in names)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalaxyError(f"cannot read {path}: {error.strerror}") from error
    except BadMessage as error:
        raise GalaxyError(f"cannot read {path}", details=[error.message], hint=f"rm {path}") from error


def _write(path: Path, noun: Struct) -> None:
    scratch = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(encode(noun) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise GalaxyError(f"cannot write {path}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder of ``path`` against other writers of it; they hold it for milliseconds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise GalaxyError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
