"""``galaxy up``, ``galaxy down`` and ``galaxy doctor``: a whole cluster on this host."""
