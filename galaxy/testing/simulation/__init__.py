"""A simulated cluster in one thread: production logic, a virtual clock and named faults.

``python -m galaxy.testing.simulation --seed 7`` replays one log; ``--seeds 0:500`` runs many.
"""
