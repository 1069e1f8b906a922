"""Building blocks of every logic, all pure: transition tables, timers and exponential back-off."""
