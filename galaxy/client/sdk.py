"""``Galaxy``: all operations on a cluster that the command line offers, as typed methods."""

from __future__ import annotations

import getpass
import os
from types import TracebackType

from galaxy.client import contexts
from galaxy.client.methods.cluster import ClusterMethods
from galaxy.client.methods.machines import MachineMethods
from galaxy.client.methods.programs import ProgramMethods
from galaxy.client.methods.secrets import SecretMethods
from galaxy.client.methods.usage import UsageMethods
from galaxy.client.methods.users import UserMethods
from galaxy.client.transport import RequestTransport
from galaxy.errors import GalaxyError, Unreachable, UsageError


class Galaxy(ProgramMethods, ClusterMethods, MachineMethods, UsageMethods, UserMethods, SecretMethods):
    """A connection to one cluster.

    The cluster is named by ``url`` (its Redis), ``dir`` (a folder of ``galaxy up``) or ``context``;
    without any of them by GALAXY_REDIS, GALAXY_DIR, or the current context. Every method returns
    within ``timeout_s`` seconds or raises. If Redis is unavailable for less than that (during a
    restart or failover), the method waits for it. When an answer is lost, the request is
    repeated under the same idempotency key, so a change is made once; ``key`` lets a caller
    choose that key.

        with Galaxy() as galaxy:
            galaxy.run("job.yaml")
            for endpoint in galaxy.discover("hello"):
                print(endpoint.address, endpoint.port)

    Raises:
        NotFound: no cluster is known.
        Refused: the password is wrong.
        Unreachable: Redis does not answer.
    """

    def __init__(
        self,
        url: str | None = "",
        *,
        dir: str | os.PathLike[str] | None = "",
        context: str | None = "",
        timeout_s: float = 5.0,
        user: str | None = "",
        token: str | None = "",
    ) -> None:
        if not timeout_s > 0:
            raise UsageError(f"`timeout_s` of Galaxy() is a number of seconds above 0, not {timeout_s}")
        self.cluster = contexts.find_cluster(url=url or "", dir=os.fspath(dir or ""), context=context or "")
        token = token or self.cluster.token
        self.timeout_s = timeout_s
        try:
            self._transport = RequestTransport(
                self.cluster.url, user=user or _user_name(), timeout_s=min(timeout_s, 5.0), token=token
            )
        except Unreachable as error:
            raise self._with_origin(error) from error

    def __enter__(self) -> Galaxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Galaxy at {self._transport.address}>"

    def close(self) -> None:
        """Close the connection; iterators over logs end."""
        self._transport.close()

    def _with_origin(self, error: Unreachable) -> GalaxyError:
        """Explain an unreachable cluster: where its address came from and how to restart it."""
        hint = contexts.start_command(self.cluster.dir) if self.cluster.dir else error.hint
        details = [*error.details, f"the cluster is named by {self.cluster.named_by}"]
        return Unreachable(error.message, details=details, hint=hint)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
