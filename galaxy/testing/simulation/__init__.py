"""A whole cluster in one thread: the production logic, a virtual clock, and faults that have names.

``python -m galaxy.testing.simulation --seed 7`` replays one story; ``--seeds 0:500`` runs many.
"""
