"""What is known of one private name that the library relies on."""

from __future__ import annotations

from typing import NamedTuple


class PrivateName(NamedTuple):
    """The modules that depend on a private name, and their purpose."""

    modules: str
    """The modules of this library that use it, divided by spaces."""

    purpose: str

    since: tuple[int, int] = (3, 10)
    """The first version of Python on which it is used."""

    until: tuple[int, int] = (4, 0)
    """The first version of Python on which it is no longer used."""

    only_posix: bool = False

    since_sdk: tuple[int, int] = (1, 0)
    """The first version of ``opentelemetry-sdk`` that has it."""
