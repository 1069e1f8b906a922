"""Users, grants, quotas and secrets."""
