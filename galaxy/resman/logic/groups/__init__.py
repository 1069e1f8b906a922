"""Container groups and the containers in them."""
