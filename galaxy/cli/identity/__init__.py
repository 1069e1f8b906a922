"""Commands on users, quotas, secrets, the audit trail and Redis logins."""
