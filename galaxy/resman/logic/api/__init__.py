"""Requests of operators to ResMan."""
