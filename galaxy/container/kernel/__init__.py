"""System calls and kernel facts that Python has no function for."""
