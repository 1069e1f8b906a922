"""Log and exec sessions of one agent: a client talks to a pod through Redis."""
