"""The launcher: the parent process of every container."""
