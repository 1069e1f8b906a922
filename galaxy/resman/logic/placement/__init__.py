"""Placement of waiting slots."""
