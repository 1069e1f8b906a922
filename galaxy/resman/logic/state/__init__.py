"""ResMan's state: tables, what is derived from them, and what a leadership has learnt."""
