"""One agent's package cache."""
