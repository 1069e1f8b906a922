"""Commands that show agents and the cluster, and choose a cluster."""
