"""A whole cluster on this host: its folder, its processes, and how to end all of it."""
