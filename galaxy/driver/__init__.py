"""A leader's tick: inbox, logic, commit, publish. Both leaders run this loop."""
