"""The resource layer: which machine holds which container."""
