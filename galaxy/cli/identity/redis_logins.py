"""``galaxy redis``: the Redis logins of Galaxy's processes, for operators who run their own server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from galaxy.cli.lazy import Command, LazyGroup
from galaxy.cli.output import print_err, print_out
from galaxy.client.cluster_file import read_cluster
from galaxy.client.contexts import find_cluster
from galaxy.client.login_urls import join_url, login_url
from galaxy.errors import HostError, UsageError
from galaxy.nexus import acl
from galaxy.nexus.url import address_of


@click.group(
    cls=LazyGroup,
    examples="""\
  galaxy redis secret /etc/galaxy/secret               make the secret from which passwords derive
  galaxy redis acl --secret /etc/galaxy/secret --host h1 --host h2 > /etc/redis/users.acl
  galaxy redis url agent --host h1 --secret /etc/galaxy/secret --at rediss://redis.example:6379/0
  galaxy redis url agent --host h2                     for a cluster of `galaxy up`
  galaxy redis password sentinel --secret /etc/galaxy/secret         for sentinel.conf
""",
)
def redis() -> None:
    """Make the Redis logins of Galaxy's processes: ACLs, passwords, URLs."""


secret_option = click.option(
    "--secret", type=click.Path(path_type=Path), metavar="FILE", help="The file of the cluster's secret."
)


@redis.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def secret(file: Path) -> None:
    """Write a new secret to FILE, readable by its owner only."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        raise HostError(f"cannot make {file}: {error.strerror}") from error


@redis.command("acl", cls=Command)
@secret_option
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A host with an agent; may be repeated.")
@click.option("--server", default="7.2", show_default=True, metavar="VERSION", help="Version of Redis.")
@click.option("--sentinel", is_flag=True, help="Include logins for replicas and Sentinels.")
def acl_(secret: Path | None, hosts: tuple[str, ...], server: str, sentinel: bool) -> None:
    """Print the ACL file of a Redis server: a login for each role, with password hashes."""
    if secret is None:
        raise UsageError("no secret file given", hint="galaxy redis secret FILE, then --secret FILE")
    text = acl.file(_read_secret(secret), hosts, setinfo=acl.knows_setinfo(server), sentinel=sentinel)
    print_out(text.rstrip("\n"), raw=True)


@redis.command(cls=Command)
@click.argument("login", type=click.Choice(tuple(acl.REDIS_OWN)))
@secret_option
def password(login: str, secret: Path | None) -> None:
    """Print the password of a replica or Sentinel login, for masterauth and sentinel auth-pass."""
    if secret is None:
        raise UsageError("no secret file given", hint=f"galaxy redis password {login} --secret FILE")
    print_out(acl.password(_read_secret(secret), login))


@redis.command(cls=Command)
@click.argument("role", type=click.Choice([*acl.ROLES, acl.ADMIN]))
@click.option("--host", default="", metavar="HOST", help="The agent's host.")
@secret_option
@click.option("--at", metavar="URL", help="The server; a login in the URL is replaced.")
@click.option("--dir", "directory", metavar="DIR", default="", help="The folder of a cluster on this host.")
def url(role: str, host: str, secret: Path | None, at: str | None, directory: str) -> None:
    """Print the URL with which a role connects; it contains a password.

    For a cluster of `galaxy up`, the login of an agent is created if it does not exist yet, and the
    URL has the address of `galaxy up --listen`.
    """
    if (role == acl.AGENT) != bool(host):
        raise UsageError(
            "--host goes with the role agent, and only with it", hint="galaxy redis url agent --host HOST"
        )
    if (secret is None) != (at is None):
        raise UsageError("--secret and --at go together")
    if secret is not None and at is not None:
        address_of(at)
        print_out(login_url(at, _read_secret(secret), role, host))
    elif role == acl.ADMIN:
        cluster = read_cluster(find_cluster(dir=directory).dir)
        if cluster is None or not cluster.secret:
            raise UsageError("this cluster uses your own Redis server, whose logins Galaxy does not manage")
        print_out(login_url(cluster.url, cluster.secret, role))
    else:
        made = join_url(role, host, dir=directory)
        folder = find_cluster(dir=directory).dir
        cluster = read_cluster(folder) if folder else None
        if cluster is not None and cluster.listen:
            shown = f"[{cluster.listen}]" if ":" in cluster.listen else cluster.listen
            made = made.replace("@127.0.0.1:", f"@{shown}:")
        elif role == acl.AGENT and "@127.0.0.1:" in made:
            print_err("only this host reaches that address; for others: galaxy up --listen ADDRESS")
        print_out(made)


def _read_secret(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(text) < 20:
        raise UsageError(f"the secret in {path} is too short", hint="galaxy redis secret FILE makes one")
    return text
