"""What leaders store, and the tables that hold it."""
