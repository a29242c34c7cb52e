"""The generator."""


async def awatch():
    """Yield two messages."""
    yield 1
    yield 2
