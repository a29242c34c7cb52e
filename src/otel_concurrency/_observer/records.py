"""A record of a hand-off, which travels along with it, to other processes too."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

Origin = tuple[str, str, str]
"""A span: its trace, itself, and its name."""

_MOST_OF_A_NAME = 300
_MOST_OF_A_SITE = 1000
"""How many characters of these a record has: it is to fit into an environment."""

_numbers = itertools.count(time.time_ns() // 1000)
"""Counted from the time on: a process may become another program, and keeps its own number."""


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
        """The origin; where there was none, that of what the handing flow was handed off by."""
        self.clean: bool = facts["clean"]
        """Whether the work starts clean by design."""
        self.carried: bool = facts["carried"]
        self.native: bool = facts["native"]
        """Whether a context goes with it by the program's own doing: it submits ``context.run``."""
        self.ancestors: tuple[str, ...] = tuple(facts["ancestors"])
        """The traces that it comes from."""
        self.lineage: tuple[int, ...] = tuple(facts["lineage"])
        """The threads that it comes from, in this process."""
        self.work: str = _short(facts["work"])
        """The name of what starts clean by design; "" where it is the user who wants it to."""
        self.made_in: weakref.ref[Any] | None = None
        """The flow that has handed it off, in this process."""

    @property
    def is_all_of_its_thread(self) -> bool:
        """Whether what it leaves behind ends with its thread, or its process."""
        return self.primitive == "threading" or self.call == "Process.start"

    def facts(self) -> dict[str, Any]:
        """Return it as what JSON and pickles can hold."""
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
    """Return what nothing else in any process has for an identifier."""
    return f"{os.getpid()}-{next(_numbers)}"
