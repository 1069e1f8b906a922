"""The launcher: the process that creates containers, and the parent of every PID 1."""
