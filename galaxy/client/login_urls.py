"""Redis URLs with the login of a role: what a process needs to join a cluster."""

from __future__ import annotations

import os
import re

from galaxy.client.cluster_file import read_cluster
from galaxy.client.contexts import find_cluster, url_from_environment
from galaxy.errors import UsageError


def login_url(url: str, secret: str, role: str, host: str = "") -> str:
    """Return ``url`` with the login of ``role`` instead of any login it has; see ``nexus.acl``."""
    from galaxy.nexus import acl

    scheme, split, rest = url.partition("://")
    user = acl.login(role, host)
    where, slash, query = re.split(r"([/?]|$)", rest, maxsplit=1)
    return f"{scheme}{split}{user}:{acl.password(secret, user)}@{where.rpartition('@')[2]}{slash}{query}"


def join_url(role: str, host: str = "", *, url: str = "", dir: str = "") -> str:
    """Return the URL with which a process of ``role`` joins: ``url``, GALAXY_REDIS, or that of a folder.

    In a folder of ``galaxy up`` each role has its own login. The login of an agent is created
    in Redis when it does not exist yet.

    Raises:
        UsageError: ``dir`` and GALAXY_REDIS name a cluster each. (``galaxy up`` sets GALAXY_DIR as well.)
        NotFound: no cluster is named, or it does not run.
        Unreachable: its server does not answer.
    """
    from galaxy.nexus import Nexus, acl

    named, variable = (url, "") if url else url_from_environment()
    if variable and dir and os.environ.get("GALAXY_DIR") != dir:
        raise UsageError(
            f"--dir and {variable} both name a cluster",
            details=[f"--dir is {dir}"],
            hint=f"unset {variable}, or name the Redis with --redis-file",
        )
    if named:
        return named
    chosen = find_cluster(dir=dir)
    cluster = read_cluster(chosen.dir) if chosen.dir else None
    if cluster is None or not cluster.secret:
        return chosen.url
    if role == acl.AGENT:
        with Nexus.connect(login_url(cluster.url, cluster.secret, acl.ADMIN), name="galaxy-join") as nexus:
            nexus.make_login(role, cluster.secret, host)
    return login_url(cluster.url, cluster.secret, role, host)


def drop_agent_login(host: str, *, dir: str) -> bool:
    """Delete the login of the agent of ``host`` if the cluster in ``dir`` has its logins from Galaxy.

    Returns False when Galaxy did not make the logins, or there is none of that host.
    """
    from galaxy.nexus import Nexus, acl

    cluster = read_cluster(dir) if dir else None
    if cluster is None or not cluster.secret:
        return False
    with Nexus.connect(login_url(cluster.url, cluster.secret, acl.ADMIN), name="galaxy-forget") as nexus:
        return nexus.drop_login(acl.AGENT, host)


def restore_agent_login(host: str, *, dir: str) -> None:
    """Create the login of the agent of ``host`` again, if ``dir`` has a cluster; the password is the same."""
    from galaxy.nexus import Nexus, acl

    cluster = read_cluster(dir)
    if cluster is None:
        return
    with Nexus.connect(login_url(cluster.url, cluster.secret, acl.ADMIN), name="galaxy-join") as nexus:
        nexus.make_login(acl.AGENT, cluster.secret, host)
