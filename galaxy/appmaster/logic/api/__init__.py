"""Requests of clients: changes, queries and sessions."""
