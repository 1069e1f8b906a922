"""What must never be (``safety``) and what must come to be (``liveness``)."""
