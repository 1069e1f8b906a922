"""Finding an agent for each pending container."""
