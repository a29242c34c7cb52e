"""Whether a queue operation was called by a module that is known, whatever stands in between."""

from __future__ import annotations

import sys

import pytest

from otel_concurrency._items import known_queues


def called_through(*modules):
    """Return whether a call is plumbing that goes through these modules, the last one innermost."""
    call = lambda: known_queues.is_plumbing(sys._getframe(1))  # noqa: E731
    for module in reversed(modules):
        scope = {"__name__": module, "call": call}
        exec("def through(): return call()", scope)
        call = scope["through"]
    return call()


@pytest.mark.parametrize("known", ["concurrent.futures.thread", "kombu.pools"])
@pytest.mark.parametrize(
    "between",
    [
        (),
        ("queue",),
        ("asyncio.queues", "otel_concurrency._items.queue_hooks"),
        ("otel_concurrency._a_module_to_come", "queue", "otel_concurrency._items.pairing"),
    ],
)
def test_the_queues_own_methods_and_ours_stand_in_between(known, between):
    """What counts is who has called them, in whichever modules of ours they stand."""
    assert called_through(known, *between)
    assert not called_through("program", *between)


@pytest.mark.parametrize("between", ["program", "otel_concurrency_else", "queue.more", "logging"])
def test_any_other_module_in_between_acts_for_itself(between):
    """A module that is not ours, however similar its name, is a caller of its own."""
    assert not called_through("kombu.pools", between, "queue")


def test_modules_of_ours_that_act_for_plumbing_are_plumbing():
    """They are found before what stands in between is passed through."""
    ours = [name for name in known_queues.PLUMBING if name.startswith("otel_concurrency.")]
    assert ours
    for name in ours:
        assert called_through("program", name, "queue")
