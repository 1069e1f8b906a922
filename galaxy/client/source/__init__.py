"""Job files as text: YAML, JSON and TOML with positions."""
