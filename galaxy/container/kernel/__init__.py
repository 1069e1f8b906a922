"""System calls and facts about the kernel that Python has no function for."""
