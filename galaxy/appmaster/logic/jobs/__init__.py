"""Jobs, their pods, container groups and endpoints."""
