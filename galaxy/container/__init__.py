"""Linux containers: one kernel seam, cgroups, namespaces, root file systems, volumes."""
