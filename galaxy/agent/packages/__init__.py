"""Packages on one host: which sources are allowed, how archives are fetched, and the cache."""
