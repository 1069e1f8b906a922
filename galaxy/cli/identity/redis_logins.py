"""``galaxy redis``: the logins that Redis shall have, for operators who run their own server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.output import print_out
from galaxy.client.cluster_file import read_cluster
from galaxy.client.contexts import find_cluster
from galaxy.client.login_urls import join_url, login_url
from galaxy.errors import HostError, UsageError
from galaxy.nexus import acl
from galaxy.nexus.url import address_of


@click.group(
    cls=LazyGroup,
    examples="""\
  galaxy redis secret /etc/galaxy/secret               make the secret that passwords derive from
  galaxy redis acl --secret /etc/galaxy/secret --host h1 --host h2 > /etc/redis/users.acl
  galaxy redis url agent --host h1 --secret /etc/galaxy/secret --at rediss://redis.example:6379/0
  galaxy redis url agent --host h2                     the same for a cluster of `galaxy up`
  galaxy redis password sentinel --secret /etc/galaxy/secret         for sentinel.conf
""",
)
def redis() -> None:
    """Logins of Galaxy's parts in Redis: what each may do, and how it gets in."""


secret_option = click.option(
    "--secret", type=click.Path(path_type=Path), metavar="FILE", help="The file of the cluster's secret."
)


@redis.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def secret(file: Path) -> None:
    """Make a file with a new secret, for its owner only."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        raise HostError(f"cannot make {file}: {error.strerror}") from error


@redis.command("acl", cls=Command)
@secret_option
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A host with an agent; again for more.")
@click.option("--server", default="7.2", show_default=True, metavar="VERSION", help="Redis' version.")
@click.option("--sentinel", is_flag=True, help="Logins for replicas and Sentinels, too.")
def acl_(secret: Path | None, hosts: tuple[str, ...], server: str, sentinel: bool) -> None:
    """Print the ACL file of a Redis server: a login for each role, with hashes of passwords."""
    if secret is None:
        raise UsageError("no secret named", hint="galaxy redis secret FILE, then --secret FILE")
    text = acl.file(_read(secret), hosts, setinfo=acl.knows_setinfo(server), sentinel=sentinel)
    print_out(text.rstrip("\n"), raw=True)


@redis.command(cls=Command)
@click.argument("login", type=click.Choice(tuple(acl.REDIS_OWN)))
@secret_option
def password(login: str, secret: Path | None) -> None:
    """Print the password of a login of Redis' own parts, for masterauth and sentinel auth-pass."""
    if secret is None:
        raise UsageError("no secret named", hint=f"galaxy redis password {login} --secret FILE")
    print_out(acl.password(_read(secret), login))


@redis.command(cls=Command)
@click.argument("role", type=click.Choice([*acl.ROLES, acl.ADMIN]))
@click.option("--host", default="", metavar="HOST", help="The agent's host.")
@secret_option
@click.option("--at", metavar="URL", help="Where the server is; its login is replaced.")
@click.option("--dir", "directory", metavar="DIR", default="", help="The cluster of this folder.")
def url(role: str, host: str, secret: Path | None, at: str | None, directory: str) -> None:
    """Print the URL by which a role logs in; it holds a password.

    For a cluster of `galaxy up` an agent's login is made if there is none yet.
    """
    if (role == acl.AGENT) != bool(host):
        raise UsageError("an agent's login is its host's own", hint="galaxy redis url agent --host HOST")
    if (secret is None) != (at is None):
        raise UsageError("--secret and --at go together")
    if secret is not None and at is not None:
        address_of(at)
        print_out(login_url(at, _read(secret), role, host))
    elif role == acl.ADMIN:
        cluster = read_cluster(find_cluster(dir=directory).dir)
        if cluster is None or not cluster.secret:
            raise UsageError("its logins are not ours: the cluster uses a Redis of its own")
        print_out(login_url(cluster.url, cluster.secret, role))
    else:
        print_out(join_url(role, host, dir=directory))


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if len(text) < 20:
        raise UsageError(f"the secret in {path} is too short", hint="galaxy redis secret FILE makes one")
    return text
