"""Commands on jobs and pods."""
