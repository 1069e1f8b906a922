"""Faults on a real cluster while witnesses count: ``galaxy-chaos``, and the engine of its tests."""
