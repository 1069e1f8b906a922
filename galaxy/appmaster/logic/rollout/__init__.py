"""Moving pods between revisions."""
