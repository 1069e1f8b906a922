"""Job files as text in YAML, JSON or TOML, with the line and column of every field."""
