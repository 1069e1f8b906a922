"""Commands that run Galaxy's long-running processes."""
