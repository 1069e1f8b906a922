"""The agent's connections to its AppWorkers."""
