"""The SDK: ``from galaxy.client import Galaxy``."""
