"""cloudpickle: what is replaced in the standard library is pickled by name, and by value."""

from __future__ import annotations

import importlib
import pickle
import types

import cloudpickle
import pytest

from layers import PLACES
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core.function_proxies import PLAIN_FUNCTIONS

PROXIES = [
    place
    for place in PLACES
    if isinstance(place.function, types.FunctionType) and str(place) not in PLAIN_FUNCTIONS
]
BY_NAME = [
    place
    for place in PROXIES
    if not isinstance(place.raw, classmethod)
    and place.name != "TimerHandle._run"  # inherited: it pickles as `Handle._run`
]
"""The function of a class method is not found under its name: it is pickled by value as it is."""

BY_VALUE = [place for place in PROXIES if place.module != "multiprocessing.queues"]
"""These name the pickler, a class of ours while the library is on; but all that a program can send
of that module are its queues, and those to children alone, which have them by name."""


@pytest.fixture
def switch():
    """Return what switches everything on."""
    yield lambda: ConcurrencyInstrumentor().instrument(subprocess="parent")
    ConcurrencyInstrumentor().uninstrument()


@pytest.mark.parametrize("place", BY_NAME, ids=str)
def test_it_is_pickled_by_name(place, switch):
    """As long as nobody asks for more: what is unpickled is what is found there."""
    switch()
    function = getattr(place.owner, place.attribute)
    assert pickle.loads(cloudpickle.dumps(function)) == function


@pytest.mark.parametrize("place", BY_VALUE, ids=str)
def test_it_is_pickled_by_value_as_the_original(place, switch):
    """What crosses is the original's code and nothing of the library's."""
    module = importlib.import_module(place.module)
    cloudpickle.register_pickle_by_value(module)
    try:
        original = place.function
        try:
            pickled = cloudpickle.dumps(original)
        except Exception as error:
            expected = type(error), str(error)  # its globals have something that cannot be pickled
        else:
            expected = None
        switch()
        if expected is not None:
            with pytest.raises(expected[0]) as raised:
                cloudpickle.dumps(place.function)
            assert str(raised.value) == expected[1]
            return
        again = cloudpickle.dumps(place.function)
    finally:
        cloudpickle.unregister_pickle_by_value(module)

    assert b"otel_concurrency" not in again
    copy = pickle.loads(again)
    assert copy.__code__ == pickle.loads(pickled).__code__ == original.__code__
    assert copy is not place.function
