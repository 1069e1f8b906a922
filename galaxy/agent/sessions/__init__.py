"""Log and exec sessions of one agent."""
