"""A pod's life inside its container, pure: functions from (pod, event, now) to (pod, effects).

``now_s`` is a monotonic clock; whatever is shown to people (``at_s``) is Unix time and arrives
inside events. ``law`` is the table of task states, ``pod.step`` the one entry.
"""
