"""Flower, started the way Galaxy needs it."""
