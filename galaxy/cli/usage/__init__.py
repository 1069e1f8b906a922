"""Commands about usage: accounts, bills and what runs now."""
