"""The tick: inbox, logic, commit, publish. One loop for both leaders."""
