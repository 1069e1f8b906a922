"""AppWorker's decisions: pure functions from a pod and an event to a pod and effects.

``pod.step`` is the only entry point. ``records`` holds the state, ``events`` and ``effects`` the
input and output, ``transitions`` the table of task states.
"""
