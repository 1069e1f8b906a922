"""The service layer: which program runs in which container, and which users may change that."""
