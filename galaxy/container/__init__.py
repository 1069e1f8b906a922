"""Linux containers: kernel calls, cgroups, file systems, networks, and the launcher that creates them."""
