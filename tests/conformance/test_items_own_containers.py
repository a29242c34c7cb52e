"""Queues with a container of their own: what they hold is told from what is put to them later."""

from __future__ import annotations

import asyncio
import queue

import pytest
from forms import without_context
from item_forms import FORMS
from test_items import forms, handle

pytestmark = pytest.mark.usefixtures("instrumented")


def producers_of(handled, item):
    """Return the producers of all that is equal to ``item``, in the order of handling."""
    return [parent for other, parent in handled if other == item]


OWN_CONTAINERS = forms([form for form in FORMS if form.name.endswith(("Stable", "OwnHeap"))])


@OWN_CONTAINERS
def test_a_container_of_its_own_that_holds_items_carries_what_is_put_to_it_now(form, spans):
    """What was there before has no context; what comes after has its own, though it is equal."""
    queue = form.make()
    old = [(number,) for number in (1, 2)]
    for item in old:
        form.put(queue, item)
    for producer in ("a", "b"):
        form.put_under(spans, producer, queue, (1,))

    handled = without_context(handle, form, queue, spans)
    form.put_under(spans, "c", queue, old[0])
    later = without_context(handle, form, queue, spans)

    assert producers_of(handled, (2,)) == [None]
    assert sorted(map(str, producers_of(handled, (1,)))) == ["None", "a", "b"]
    assert later == [((1,), "c")]


@OWN_CONTAINERS
def test_under_load_a_container_of_its_own_needs_no_quiet_moment(form, spans):
    """Each of 200 items is handled in its own context, though something always is in the queue."""
    queue = form.make()
    expected, handled = {}, []
    for number in range(200):
        item = (number,)
        if number % 7 == 0:
            form.put(queue, item)
            expected[item] = None
        else:
            form.put_under(spans, f"producer {number}", queue, item)
            expected[item] = f"producer {number}"
        if number > 3:
            handled += without_context(handle, form, queue, spans, 1)
    handled += without_context(handle, form, queue, spans)
    assert len(handled) == 200
    assert dict(handled) == expected


@forms([form for form in FORMS if form.name.endswith("OwnHeap")])
def test_an_object_that_is_there_twice_has_no_context(form, spans):
    """Its first time may be from before: whichever of the two comes out, it is nobody's."""
    queue = form.make()
    item, other = (1,), (2,)
    form.put(queue, item)
    form.put_under(spans, "a", queue, item)
    form.put_under(spans, "b", queue, other)
    handled = without_context(handle, form, queue, spans)
    assert sorted(handled, key=str) == [(item, None), (item, None), (other, "b")]
    form.put_under(spans, "c", queue, item)
    assert without_context(handle, form, queue, spans) == [(item, "c")]


class Node:
    """One item of a linked list."""

    def __init__(self, item, behind):
        self.item, self.behind = item, behind


class Linked:
    """Keeps its items where nobody finds them."""

    def _init(self, maxsize):
        self.length, self.first = 0, None

    def _qsize(self):
        return self.length

    qsize = _qsize

    def empty(self):
        return not self.length

    def _put(self, item):
        self.length, self.first = self.length + 1, Node(item, self.first)

    def _get(self):
        item, self.first = self.first.item, self.first.behind
        self.length -= 1
        return item


@pytest.mark.parametrize("base", [queue.Queue, asyncio.Queue], ids=["threads", "asyncio"])
def test_a_container_whose_items_cannot_be_found_is_drained_first(base, spans):
    """A limit: what is put may be there already, so nothing is remembered until that is gone."""
    kind = type("Linked", (Linked, base), {})
    items = kind()
    shared = [(number,) for number in range(300)]

    def consume():
        items.get_nowait()
        return spans.parent()

    for item in shared:
        items.put_nowait(item)
    with spans.current("a"):
        for item in shared:
            items.put_nowait(item)
    assert [without_context(consume) for _ in range(2 * len(shared))] == [None] * 2 * len(shared)
    with spans.current("b"):
        items.put_nowait(shared[0])
    assert without_context(consume) == "b"
