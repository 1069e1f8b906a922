"""The agent of one host: it creates, supervises and reports the host's containers."""
