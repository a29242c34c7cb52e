"""A task that a program of this name would run."""

from .main import awatch


async def arun_process(handle):
    """Handle what is watched."""
    async for number in awatch():
        handle(number)
