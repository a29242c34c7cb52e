"""Faults of the library's own, put where a test wants them."""

from __future__ import annotations

import sys

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled, handoff


class InjectedError(Exception):
    """A fault of the library's own."""


def fail(*args, **kwargs):
    """Stand in for any function of the library, and raise."""
    raise InjectedError


def always_fail(*args):
    """Stand in for a function that makes another one: one that raises."""
    return fail


class _Binding:
    """Binds the compiled part to the functions of the hand-off when set or deleted."""

    def __setattr__(self, name, value):
        compiled.bind(vars(handoff))

    def __delattr__(self, name):
        compiled.bind(vars(handoff))


def when(armed):
    """Return what makes a function like another one, but for raising once for each of ``armed``."""

    def instead(function):
        def armed_or_not(*args):
            if armed:
                armed.pop()
                fail()
            return function(*args)

        return armed_or_not

    return instead


def wherever_it_is(name, instead=always_fail):
    """Return what makes a function of the hand-off raise in every module and seam that holds it.

    ``instead`` makes the function that is in its place.
    """

    def inject(patch):
        ConcurrencyInstrumentor().instrument()  # makes what is made at the first use
        ConcurrencyInstrumentor().uninstrument()
        function = getattr(handoff, name)
        replacement = instead(function)
        patch(_Binding(), "bound", True, raising=False)  # undone after all others
        for seam in handoff.seams.values():
            for slot in ("current", "concerned"):
                if getattr(seam, slot) is function:
                    patch(seam, slot, replacement)
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("otel_concurrency") and vars(module).get(name) is function:
                patch(module, name, replacement)
        compiled.bind(vars(handoff))

    return inject
