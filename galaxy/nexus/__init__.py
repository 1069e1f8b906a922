"""Redis as lock, address book and memory; the only place that knows its keys."""
