"""What is noted of an object without weak references, to tell it from the next one in its place."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from otel_concurrency._items import members


@dataclass(slots=True)
class Connection:
    """What a pool holds: it changes while it is used."""

    socket: object
    used: float = 0.0
    name: str = "main"


@dataclass(slots=True)
class Job:
    """A piece of work."""

    address: str
    function: object = len
    retries: int = 0


@dataclass(slots=True)
class Derived(Job):
    """With more slots than the class that it is derived from."""

    tenant: str = "acme"


class Hostile:
    """None of its own code is to run."""

    __slots__ = ("value",)

    def __init__(self):
        object.__setattr__(self, "value", "a long text")

    def __getattribute__(self, name):
        raise AssertionError(name)

    __hash__ = __eq__ = __getattribute__


def noted(item, change=lambda item: None):
    """Return whether an object that ``change`` has changed is like what was noted before."""
    before = members.of(item)
    change(item)
    return members.are_alike(before, members.of(item))


def test_an_object_that_has_changed_is_like_itself():
    """What it is for is the same."""
    connection = Connection(threading.Lock())

    def use(connection):
        connection.used, connection.name = 2.5, "other"

    assert noted(connection, use)
    assert noted(Hostile())


def test_two_pieces_of_work_are_not_alike():
    """What all have in common says nothing; what is to be done differs."""
    assert not members.are_alike(members.of(Job("/a")), members.of(Job("/b")))


def test_slots_of_base_classes_count():
    """One that stays the same is enough."""
    one, other = members.of(Derived("/a")), members.of(Derived("/b"))
    assert one.values.keys() == {"address", "tenant"}
    assert members.are_alike(one, other)


def test_objects_of_which_nothing_tells_are_alike():
    """A missing parent is better than a wrong one, so they count as the same."""
    assert members.are_alike(members.of(Connection(None)), members.of(Connection(None)))


def test_objects_of_two_classes_are_not_alike():
    """Even if they hold the same."""
    lock = threading.Lock()
    assert not members.are_alike(members.of(Connection(lock)), members.of(Job(lock)))


def test_a_slot_that_is_empty_says_nothing():
    """It may be filled later."""
    connection = Connection(threading.Lock())
    del connection.used
    assert noted(connection, lambda connection: setattr(connection, "used", 1.5))
