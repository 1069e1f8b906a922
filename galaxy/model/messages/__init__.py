"""Messages between the parts of Galaxy."""
