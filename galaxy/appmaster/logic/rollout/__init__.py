"""Moving pods from one revision to the next."""
