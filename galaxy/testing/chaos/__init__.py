"""Fault injection on a real cluster while programs count: ``galaxy-chaos``, and the engine of its tests."""
