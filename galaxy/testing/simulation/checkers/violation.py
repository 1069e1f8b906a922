"""The exception that checkers raise."""


class Violation(AssertionError):
    """A property that does not hold; the message names it and what broke it."""
