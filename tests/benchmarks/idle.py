"""What a process does that does nothing. It imports nothing, since its processes import it."""


def nothing() -> None:
    """Do nothing."""
