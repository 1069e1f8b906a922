"""Nouns: specs, containers, pods, agents, and the messages that carry them. No decisions, no I/O."""
