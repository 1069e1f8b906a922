"""The service layer: which program runs in which container."""
