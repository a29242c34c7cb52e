"""In the place of the library of this name: periodic work."""

import asyncio


class Cron:
    """Calls something again and again, at once."""

    def __init__(self, call):
        self.call = call

    def start(self):
        """Start it."""
        asyncio.get_running_loop().call_soon(self.again)

    def again(self):
        """Call it, and once more."""
        if self.call():
            self.start()
