"""Flower with Galaxy's settings."""
