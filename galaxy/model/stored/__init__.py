"""The records that leaders store, and the tables that hold them."""
