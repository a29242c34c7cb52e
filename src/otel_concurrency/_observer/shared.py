"""Switches something on for several overlapping users, such as tests that watch a process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class Shared:
    """Something that its first user switches on and its last user switches off."""

    def __init__(self) -> None:
        self._users = 0
        self._switch_off: Callable[[], None] | None = None

    @property
    def is_used(self) -> bool:
        """Whether it has a user now."""
        return self._users > 0

    @contextmanager
    def used(self, switch_on: Callable[[], Callable[[], None]]) -> Generator[None, None, None]:
        """Keep it on inside the ``with`` block; ``switch_on`` returns what switches it off."""
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
