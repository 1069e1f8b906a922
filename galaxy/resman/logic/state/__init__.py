"""ResMan's tables and what is derived from them."""
