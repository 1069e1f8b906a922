"""The resource layer: which agent runs which container."""
