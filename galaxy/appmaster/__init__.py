"""The service layer: which program runs in which container, and who may decide that."""
