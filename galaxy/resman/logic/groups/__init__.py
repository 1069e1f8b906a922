"""Container groups: orders, the lifecycle of a slot, and what is sent to agents and AppMaster."""
