"""Chooses between the compiled part of the hot path and its twin in pure Python.

The choice is made once, when this module is imported. The compiled part is ``_compiled.c``, with
what that includes from ``_c``. It is there where a wheel for this interpreter was installed, or one
was built by a compiler; the library does the same without it, at the cost of a few more
instructions.

Whoever has a compiled twin asks :data:`functions`: it is None where the pure one is to be used.
"""

from __future__ import annotations

import copyreg
import logging
import os
import sys
from importlib import import_module
from typing import Any, Protocol, cast

from otel_concurrency._core import faults
from otel_concurrency.environment_variables import OTEL_PYTHON_CONCURRENCY_PURE_PYTHON

_logger = logging.getLogger(__name__)

INTERFACE = 8
"""The number that ``_compiled.c`` has too. It changes with what the functions take and expect."""


class Functions(Protocol):
    """The functions of the compiled part; ``_compiled.c`` says what each does."""

    Method: type[Any]
    """The class of what :meth:`method` returns."""

    DirectCall: type[Any]
    """The compiled subclass of ``handoff.Call``, which :meth:`bind` makes."""

    def bind(self, namespace: dict[str, Any], /) -> None:
        """Work with what is in the namespace of ``handoff``."""

    def adopt_or(self, twin: Any, span_key: str, invalid: object, known: object, /) -> Any:
        """Return a function that adopts a context, and leaves what is not usual to ``twin``.

        A context has its span under ``span_key``; ``invalid`` stands for none. ``known`` is the
        descriptor of the slot of a batch in which its contexts are.
        """

    def method(self, kind: str, twin: Any, /, *parts: object) -> Any:
        """Return a method that is called as ``twin`` is, and leaves what is not usual to it.

        ``kind`` is the class and the method, such as ``SimpleQueue.put``; what its ``parts`` are is
        in ``_c``. What is read from the method, or set in it, is an attribute of ``twin``.
        """

    def make_directly(self, kind: type, /) -> None:
        """Have a call of the class ``kind`` call its ``__new__``, or such a method, directly."""

    def begins(self, seam: object, sides: dict[int, Any], queue: object, /) -> bool:
        """Return whether there is nothing to do before the flow asks ``queue`` for an item.

        The ``seam`` is on, and ``ask`` of ``adoption`` would do nothing. What is known of a queue
        is in ``sides``, by the id of the queue.
        """
        ...

    def arrived(
        self,
        seam: object,
        sides: dict[int, Any],
        queue: object,
        message: bytes | None,
        carrier: dict[str, Any],
        /,
    ) -> bool:
        """Return whether all is done for an item that has come out of ``queue``.

        It has come with ``message``, or with None where nothing follows its pickle. ``carrier`` is
        the namespace of the module that has decoded a context last.
        """
        ...

    def known_trailer(self, context: object, carrier: dict[str, Any], /) -> bytes | None:
        """Return the trailer of ``context`` if that is what was encoded last; otherwise None.

        ``carrier`` is the namespace of the module that has encoded it.
        """

    def begin_collection(self, phase: str, info: object, /) -> None:
        """Attach an empty context, for ``gc.callbacks``: a collection begins in this thread.

        Nothing is done where the current context is not in a context variable.
        """

    def end_collection(self, phase: str, info: object, /) -> None:
        """Detach it, with what was attached and adopted since, and not let go of."""

    def is_collecting(self) -> bool:
        """Return whether a collection has begun, and its end was not heard of yet."""
        ...


_WORDS = {"true": True, "1": True, "false": False, "0": False}


def _is_pure_wanted() -> bool:
    given = os.environ.get(OTEL_PYTHON_CONCURRENCY_PURE_PYTHON, "")
    word = given.strip().lower()
    if word and word not in _WORDS:
        faults.once(
            _logger,
            (OTEL_PYTHON_CONCURRENCY_PURE_PYTHON, given),
            "%s got %s, which is not valid and is ignored; expected %s.",
            OTEL_PYTHON_CONCURRENCY_PURE_PYTHON,
            repr(given),
            "true or false",
        )
    return _WORDS.get(word, False)


def _chosen() -> tuple[Functions | None, str]:
    """Return the compiled functions, or None; and why. Never raises."""
    if _is_pure_wanted():
        return None, f"{OTEL_PYTHON_CONCURRENCY_PURE_PYTHON} is set"
    if sys.implementation.name != "cpython":
        return None, "the compiled part is for CPython"
    try:
        found = import_module("otel_concurrency._core._compiled")
    except ModuleNotFoundError:
        return None, "the compiled part was not built for this interpreter"
    except Exception as error:
        return None, f"the compiled part cannot be loaded: {error}"
    if getattr(found, "INTERFACE", None) != INTERFACE:
        return None, "the compiled part was built from another version"
    return cast("Functions", found), ""


functions: Functions | None
reason: str
functions, reason = _chosen()


def bind(namespace: dict[str, Any]) -> None:
    """Have the compiled part work with ``namespace``, that of ``handoff``. Never raises."""
    global functions, reason
    if functions is not None:
        try:
            functions.bind(namespace)
            copyreg.pickle(functions.Method, _name)  # as a function is pickled
        except Exception as error:
            functions, reason = None, f"the compiled part cannot be used: {error}"


def _name(method: Any) -> str:
    return str(method.__qualname__)
