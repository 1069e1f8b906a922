"""Commands on users, quotas and secrets."""
