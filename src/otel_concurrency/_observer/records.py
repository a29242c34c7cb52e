"""A record of a hand-off, which travels with the work, also to other processes."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

Origin = tuple[str, str, str]
"""A span: its trace id, its span id, and its name."""

_MOST_OF_A_NAME = 300
_MOST_OF_A_SITE = 1000
"""The maximum lengths in characters: a record must fit into an environment variable."""

_numbers = itertools.count(time.time_ns() // 1000)
"""Starts at the current time: ``exec`` keeps the process id, and numbers must not repeat."""


class Record:
    """A hand-off, as plain data that may cross to another process."""

    __slots__ = (
        "ancestors",
        "at_ns",
        "call",
        "carried",
        "cause",
        "clean",
        "id",
        "lineage",
        "made_in",
        "native",
        "origin",
        "pid",
        "policy",
        "primitive",
        "site",
        "thread",
        "work",
    )

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.id: str = facts["id"]
        self.primitive: str = facts["primitive"]
        self.call: str = facts["call"]
        self.site: str = facts["site"][-_MOST_OF_A_SITE:]
        self.at_ns: int = facts["at_ns"]
        self.pid: int = facts["pid"]
        self.thread: str = _short(facts["thread"])
        self.policy: str = facts["policy"]
        self.origin: Origin | None = _origin(facts["origin"])
        self.cause: Origin | None = _origin(facts["cause"])
        """The origin; without one, the cause of the flow that handed the work off."""
        self.clean: bool = facts["clean"]
        """Whether the work starts clean by design."""
        self.carried: bool = facts["carried"]
        self.native: bool = facts["native"]
        """Whether the program carries a context itself, as when it submits ``context.run``."""
        self.ancestors: tuple[str, ...] = tuple(facts["ancestors"])
        """The traces of this and all earlier hand-offs that led to it, the latest first."""
        self.lineage: tuple[int, ...] = tuple(facts["lineage"])
        """The threads of these hand-offs in this process, the latest first."""
        self.work: str = _short(facts["work"])
        """The name of work that the table starts clean; "" if a setting of the user does so."""
        self.made_in: weakref.ref[Any] | None = None
        """The flow that handed the work off, if it was in this process."""

    @property
    def is_all_of_its_thread(self) -> bool:
        """Whether its thread or process ends with the work, and with what that left attached."""
        return self.primitive == "threading" or self.call == "Process.start"

    def facts(self) -> dict[str, Any]:
        """Return the record as plain data, for JSON and pickles."""
        names = (name for name in self.__slots__ if name != "made_in")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (self.facts(),)


def _origin(given: Any) -> Origin | None:
    if given is None:
        return None
    trace_id, span_id, name = given
    return trace_id, span_id, _short(name)


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= _MOST_OF_A_NAME else f"{text[: _MOST_OF_A_NAME - 1]}…"


def new_id() -> str:
    """Return an identifier that is unique among all processes of the host."""
    return f"{os.getpid()}-{next(_numbers)}"
