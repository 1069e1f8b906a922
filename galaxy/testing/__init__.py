"""The simulator and the chaos runner."""
