"""What a checker raises."""


class Violation(AssertionError):
    """A promise that was broken; the message says which one, by whom, and when."""
