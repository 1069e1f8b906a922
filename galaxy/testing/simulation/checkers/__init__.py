"""Checkers: what must never happen (safety) and what must eventually happen (liveness)."""
