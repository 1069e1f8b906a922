"""Commands that run Galaxy's processes."""
