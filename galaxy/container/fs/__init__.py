"""A container's file system: root, volumes, /etc, and removal."""
