"""Agents: heartbeats, liveness, safe mode and reports."""
