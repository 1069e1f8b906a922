"""Commands on agents and the cluster."""
