"""Which cluster a command talks to, and the contexts of a user.

A user's ``contexts.json`` keeps clusters by name, and which one was started or chosen last. It
holds tokens and passwords, so only its owner can read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from galaxy.client.cluster_file import (
    CLUSTER_FILE,
    PLAN_FILE,
    default_dir,
    read_cluster,
    read_private,
    write_private,
)
from galaxy.errors import GalaxyError, NotFound, UsageError
from galaxy.model.base import Struct
from galaxy.suggest import did_you_mean

REDIS_VARIABLES: Final = ("GALAXY_REDIS", "GALAXY_REDIS_FILE")
URL_LENGTH_MAX: Final = 4096
CONTEXTS_MAX: Final = 100
"""Limit on the contexts of a user; beyond it the oldest is dropped."""


class ChosenCluster(Struct, frozen=True, kw_only=True):
    """The cluster that a command talks to.

    ``named_by`` says where the choice came from. ``dir`` is empty for a cluster on other hosts.
    """

    url: str
    named_by: str
    dir: str = ""
    context: str = ""
    """The name of the context, if one was chosen."""
    token: str = ""
    """``USER:SECRET``, with which requests are signed."""
    is_obvious: bool = True
    """Whether the user knows no other cluster that a command could have been meant for."""
    ignored: str = ""
    """An environment variable that names another cluster, which is not used."""

    def __str__(self) -> str:
        """Return which cluster this is, without passwords."""
        where = f"in {self.dir}" if self.dir else f"at {without_password(self.url)}"
        return f"cluster {where}, named by {self.named_by}"


class Context(Struct, frozen=True, kw_only=True):
    """A named cluster: one on this host by its folder, any other by its URL and a token."""

    name: str
    dir: str = ""
    url: str = ""
    token: str = ""


class Contexts(Struct, frozen=True, kw_only=True):
    """The content of ``contexts.json``, oldest context first."""

    current: str = ""
    contexts: tuple[Context, ...] = ()

    def get(self, name: str) -> Context | None:
        """Return the context called ``name``, if there is one."""
        return next((context for context in self.contexts if context.name == name), None)


def find_cluster(
    *,
    url: str = "",
    dir: Path | str = "",
    context: str = "",
    environ: Mapping[str, str] = os.environ,
    path: Path | None = None,
) -> ChosenCluster:
    """Return the cluster that an argument, GALAXY_REDIS(_FILE), GALAXY_DIR or the current context names.

    Without any of these, a cluster that runs in the default folder is used. GALAXY_TOKEN overrides
    the token of a context or folder.

    Raises:
        UsageError: more than one argument names a cluster.
        NotFound: nothing names a cluster, or the named one does not run; the hint starts that one.
    """
    chosen = _choose(url, dir, context, environ, path)
    ignored = ""
    if chosen.named_by in REDIS_VARIABLES and environ.get("GALAXY_DIR"):
        ignored = "" if _runs_in(environ["GALAXY_DIR"], chosen.url) else "GALAXY_DIR"
    return msgspec.structs.replace(
        chosen,
        ignored=ignored,
        token=environ.get("GALAXY_TOKEN", "") or chosen.token,
        is_obvious=_is_obvious(chosen, bool(url or dir or context), path),
    )


def url_from_environment(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the Redis URL that the environment names, and the name of the variable; empty without one.

    Raises:
        UsageError: both variables are set, or the file has no URL.
    """
    variables = [name for name in REDIS_VARIABLES if environ.get(name)]
    if len(variables) > 1:
        raise UsageError(f"{' and '.join(variables)} are both set", hint="unset one of them")
    if not variables:
        return "", ""
    (name,) = variables
    value = environ[name]
    return (url_in_file(value) if name == "GALAXY_REDIS_FILE" else value), name


def given_url(url: str | None, file: str | None) -> str:
    """Return the URL of the options --redis and --redis-file; empty without both.

    Raises:
        UsageError: both are given, or the file has no URL.
    """
    if url and file:
        raise UsageError("--redis and --redis-file both name a cluster", hint="leave one of them out")
    return url_in_file(file) if file else url or ""


def url_in_file(path: str) -> str:
    """Return the URL that a file contains; ``-`` is standard input.

    Raises:
        UsageError: the file cannot be read, or does not contain one line.
    """
    try:
        if path == "-":
            text = sys.stdin.read(URL_LENGTH_MAX + 1)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(URL_LENGTH_MAX + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f'cannot read "{path}": {getattr(error, "strerror", None) or "not text"}') from error
    url = text.strip()
    if not url or len(text) > URL_LENGTH_MAX or len(url.split()) > 1:
        problem = "is empty" if not url else "is not one line with a URL"
        raise UsageError(f'"{path}" {problem}', hint="galaxy redis url ROLE > FILE writes one")
    return url


def start_command(directory: Path | str) -> str:
    """Return the command that starts the cluster of a folder."""
    where = "" if str(directory) == str(default_dir()) else f" --dir {shlex.quote(str(directory))}"
    return f"galaxy up{where} --detach"


def without_password(url: str) -> str:
    """Return ``url`` without its user and passwords, for display."""
    plain, mark, query = url.partition("?")
    plain = re.sub(r"://.*@", "://", plain)
    return plain + mark + re.sub(r"(?<![^&])(sentinel_password=)[^&]+", r"\1***", query)


def contexts_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's contexts are kept (XDG base directories)."""
    config = environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config else Path.home() / ".config") / "galaxy" / "contexts.json"


def load_contexts(path: Path | None = None) -> Contexts:
    """Return the user's contexts; none when the file does not exist.

    Raises:
        GalaxyError: the file exists and cannot be read.
    """
    return read_private(path or contexts_path(), Contexts) or Contexts()


def save_context(
    *, dir: Path | str = "", url: str = "", name: str = "", token: str = "", path: Path | None = None
) -> Context:
    """Store a cluster under ``name`` and make it the current context.

    Without ``name``, a cluster that is already known keeps its name, and a new one is named after
    its folder or host. Contexts whose folder does not exist any more are dropped.
    """
    where = path or contexts_path()
    folder = str(Path(dir).absolute()) if dir else ""
    with _locked(where):
        known = load_contexts(where)
        same = (folder, "" if folder else url)
        old = next((c for c in known.contexts if (c.dir, c.url) == same), None)
        chosen = name or (old.name if old else _free_name(known, folder, url))
        context = Context(name=chosen, dir=folder, url="" if folder else url, token=token)
        others = tuple(c for c in known.contexts if c.name != chosen and c is not old and not _is_deleted(c))
        kept = (*others, context)[-CONTEXTS_MAX:]
        write_private(where, Contexts(current=chosen, contexts=kept))
    return context


def use_context(name: str, path: Path | None = None) -> Context:
    """Make the context ``name`` the current one.

    Raises:
        NotFound: there is no such context.
    """
    where = path or contexts_path()
    with _locked(where):
        known = load_contexts(where)
        context = known_context(known, name)
        write_private(where, Contexts(current=name, contexts=known.contexts))
    return context


def remove_context(*, dir: Path | str = "", name: str = "", path: Path | None = None) -> Contexts:
    """Drop a context by folder or name, and return the rest.

    If it was the current one, an only other one becomes current. Of several others none does, so that
    no command reaches a cluster that nobody chose.
    """
    where = path or contexts_path()
    folder = str(Path(dir).absolute()) if dir else ""
    with _locked(where):
        known = load_contexts(where)
        kept = tuple(c for c in known.contexts if not (c.name == name or (folder and c.dir == folder)))
        if len(kept) == len(known.contexts):
            return known
        current_is_kept = any(c.name == known.current for c in kept)
        current = known.current if current_is_kept else (kept[0].name if len(kept) == 1 else "")
        rest = Contexts(current=current, contexts=kept)
        write_private(where, rest)
        return rest


def _choose(
    url: str, dir: Path | str, context: str, environ: Mapping[str, str], path: Path | None
) -> ChosenCluster:
    if sum(map(bool, (url, dir, context))) > 1:
        raise UsageError("more than one cluster is named", hint="give a URL, a folder or a context")
    if url:
        return ChosenCluster(url=url, named_by="the URL given")
    if dir:
        return _in_folder(dir, f"folder {dir}", _readable_contexts(path))
    if context:
        contexts = load_contexts(path)
        return _in_context(known_context(contexts, context), f'context "{context}"', contexts)
    redis, variable = url_from_environment(environ)
    if redis:
        return ChosenCluster(url=redis, named_by=variable)
    if environ.get("GALAXY_DIR"):
        return _in_folder(environ["GALAXY_DIR"], "GALAXY_DIR", _readable_contexts(path))
    contexts = load_contexts(path)
    current = contexts.get(contexts.current)
    if current is not None:
        return _in_context(current, f'the current context "{current.name}"', contexts)
    if contexts.contexts:
        raise NotFound(
            "no cluster is named, and no context is the current one",
            details=[f"known: {', '.join(c.name for c in contexts.contexts)}"],
            hint="galaxy context use NAME, or --context NAME",
        )
    folder = default_dir(environ)
    if any(os.access(folder / name, os.R_OK) for name in (CLUSTER_FILE, PLAN_FILE)):
        return _in_folder(folder, "the default folder", contexts)
    raise NotFound(
        "no cluster is known here",
        details=["neither --redis, --dir, --context, GALAXY_REDIS, GALAXY_DIR nor a context names one"],
        hint="galaxy up --detach",
    )


def _is_obvious(chosen: ChosenCluster, by_argument: bool, path: Path | None) -> bool:
    known = _readable_contexts(path).contexts
    if known:
        only = known[0]
        is_same = (chosen.dir or chosen.url) == (only.dir or only.url)
        return len(known) == 1 and (is_same or (bool(only.dir) and _runs_in(only.dir, chosen.url)))
    return by_argument or not chosen.named_by.startswith("GALAXY_")


def _readable_contexts(path: Path | None) -> Contexts:
    """Return the contexts, or none if they cannot be read: a user may have no home folder."""
    with contextlib.suppress(GalaxyError, RuntimeError):
        return load_contexts(path)
    return Contexts()


def known_context(contexts: Contexts, name: str) -> Context:
    """Return the context called ``name``.

    Raises:
        NotFound: there is no such context.
    """
    context = contexts.get(name)
    if context is None:
        names = [c.name for c in contexts.contexts]
        details = [*did_you_mean(name, names), f"known: {', '.join(names) or 'none'}"]
        raise NotFound(f'no context "{name}"', details=details, hint="galaxy context list")
    return context


def _in_context(context: Context, named_by: str, contexts: Contexts) -> ChosenCluster:
    if context.dir:
        return msgspec.structs.replace(_in_folder(context.dir, named_by, contexts), context=context.name)
    return ChosenCluster(url=context.url, named_by=named_by, context=context.name, token=context.token)


def _in_folder(directory: Path | str, named_by: str, contexts: Contexts) -> ChosenCluster:
    folder = Path(directory).absolute()
    cluster = read_cluster(folder)
    if cluster is None:
        raise _stopped(folder, named_by, contexts)
    cluster.require_readable()
    return ChosenCluster(url=cluster.url, dir=str(folder), named_by=named_by, token=cluster.token)


def _stopped(folder: Path, named_by: str, contexts: Contexts) -> NotFound:
    """Return the error for a cluster that does not run: how to start it, and which others run."""
    others = [c.name for c in contexts.contexts if c.dir != str(folder) and is_up(c)]
    details = [f"named by {named_by}"]
    if others:
        details.append(f"these run: {', '.join(others)}; galaxy context use {others[0]} chooses one")
    message = f"no cluster runs in {folder}"
    if (folder / PLAN_FILE).exists():
        message = f"the cluster in {folder} is stopped"
    return NotFound(message, details=details, hint=start_command(folder))


def _runs_in(directory: str, url: str) -> bool:
    """Return whether ``url`` reaches the cluster of a folder."""
    from galaxy.nexus.url import parse  # It imports the Redis client, which is slow.

    with contextlib.suppress(GalaxyError):
        cluster = read_cluster(directory)
        return cluster is not None and parse(cluster.url).hosts == parse(url).hosts
    return False


def is_up(context: Context) -> bool:
    """Return whether the cluster of a folder runs; False for clusters on other hosts."""
    with contextlib.suppress(GalaxyError, OSError):
        cluster = read_cluster(context.dir) if context.dir else None
        refs = cluster.processes if cluster else ()
        return cluster is not None and (not refs or any(ref.is_running() for ref in refs))
    return False


def _is_deleted(context: Context) -> bool:
    return bool(context.dir) and not os.path.lexists(context.dir)


def _free_name(known: Contexts, folder: str, url: str) -> str:
    """Return a name for a new context that no other context has."""
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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``'s folder; writers hold it for milliseconds only."""
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
