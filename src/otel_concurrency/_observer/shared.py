"""What several may need at once, who come and leave in any order: each test, say, that watches."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class Shared:
    """Something that the first who needs it switches on, and that the last switches off."""

    def __init__(self) -> None:
        self._users = 0
        self._switch_off: Callable[[], None] | None = None

    @property
    def is_used(self) -> bool:
        """Whether it is in use at present."""
        return self._users > 0

    @contextmanager
    def used(self, switch_on: Callable[[], Callable[[], None]]) -> Generator[None, None, None]:
        """Have it on meanwhile. ``switch_on``, if it is called, returns what switches it off."""
        if not self._users:
            self._switch_off = switch_on()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._switch_off is not None:
                switch_off, self._switch_off = self._switch_off, None
                switch_off()
