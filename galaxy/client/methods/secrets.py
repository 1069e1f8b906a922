"""Secrets and quotas."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.client import arguments
from galaxy.client.methods.asking import Asking
from galaxy.client.secret_files import secret_of
from galaxy.errors import SpecError
from galaxy.model.api.quotas import ListQuotas, SetQuota
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SetSecret
from galaxy.model.api.views import (
    QuotaView,
    SecretView,
)
from galaxy.model.jobspec.task_rules import BAD_NAME, is_secret_name
from galaxy.model.resources import Ceiling
from galaxy.model.stored.secret import Secret
from galaxy.model.stored.user import ALL_POOLS, check_pool_name, check_user_name


class SecretMethods(Asking):
    """Secrets and quotas."""

    def set_secret(
        self, name: str, value: str | bytes | Secret, *, user: str = "", key: str = ""
    ) -> SecretView:
        """Set the secret ``name`` to ``value``; jobs get it when they are updated.

        Operators may name the owner as ``user``. The answer lists the jobs that use the secret, and
        never contains the value.
        """
        if not is_secret_name(name):
            raise SpecError(f'"{name}" {BAD_NAME}')
        if not isinstance(value, Secret):
            value = secret_of(
                value.encode(errors="surrogatepass") if isinstance(value, str) else value, f'secret "{name}"'
            )
        return self._ask(SetSecret(name=name, value=value, user=user), key)

    def secrets(self, *, user: str = "", all: bool = False) -> list[SecretView]:
        """List your own secrets, without values; operators may name a ``user``, or request ``all``."""
        return self._all(ListSecrets(user=user, all=all), lambda page: page.secrets)

    def remove_secret(self, name: str, *, user: str = "", key: str = "") -> SecretView:
        """Remove a secret.

        Raises:
            Conflict: a job uses it.
        """
        return self._ask(RemoveSecret(name=name, user=user), key)

    def set_quota(
        self,
        user: str,
        ceiling: Ceiling,
        *,
        pool: str = ALL_POOLS,
        lift: Sequence[str] = (),
        key: str = "",
    ) -> QuotaView:
        """Set the fields of ``ceiling`` that are not None, and remove the ceilings that ``lift`` names."""
        check_user_name(user)
        check_pool_name(pool)
        asked = SetQuota(user=user, pool=pool, ceiling=ceiling, lift=arguments.names(lift, "lift"))
        return self._ask(asked, key)

    def quotas(self, user: str = "") -> list[QuotaView]:
        """List the quotas of ``user``; without it all of them for operators, your own for other users."""
        return self._all(ListQuotas(user=user), lambda page: page.quotas)
