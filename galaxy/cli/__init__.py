"""The ``galaxy`` command."""
