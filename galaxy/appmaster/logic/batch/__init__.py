"""Batch jobs: their runs."""
