"""Control groups: v1 and v2 behind one interface, one controller in each file."""
