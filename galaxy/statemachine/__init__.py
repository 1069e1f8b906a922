"""Transition tables: what may follow what, as data."""
