"""ResMan's state: tables, what is derived from them, and what agents reported in this leadership."""
