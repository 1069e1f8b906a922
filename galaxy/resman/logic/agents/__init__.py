"""Agents: heartbeats, liveness and reports."""
