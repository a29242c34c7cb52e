"""In the place of the library of this name: a task, and what gets messages."""


class Subscription:
    """Has a message that is the same each time."""

    def __init__(self, message, handle):
        self.message, self.handle = message, handle

    async def next_msg(self):
        """Get it."""
        return self.message

    async def _wait_for_msgs(self):
        self.handle(await self.next_msg())
