"""Galaxy runs services and batch jobs on many Linux machines, on Celery and Redis."""

__version__ = "0.3.0"
