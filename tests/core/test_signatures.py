"""The guard: a replacement that cannot take what the original takes is not put in place."""

from __future__ import annotations

import functools
import itertools
import operator
import queue
from types import MethodDescriptorType

import pytest
import wrapt

from interpreters import PYPY
from otel_concurrency._core import signatures
from otel_concurrency._core.patching import Layer, StandIn
from otel_concurrency._core.signatures import NOT_GIVEN, UnknownSignatureError, check

DEFAULT = object()


FUNCTIONS = {
    "nothing": lambda self: None,
    "plain": lambda self, a, b: None,
    "with_default": lambda self, a, b=None: None,
    "by_position": lambda self, a, b, /: None,
    "and_keyword": lambda self, a, b, *, c: None,
    "and_default_keyword": lambda self, a, b, *, c=1: None,
    "more": lambda self, a, b, c=None: None,
    "required": lambda self, a, b, c: None,
    "fewer": lambda self, a: None,
    "renamed": lambda self, a, other: None,
    "other_order": lambda self, b, a: None,
    "other_self": lambda this, a, b: None,
    "any_position": lambda self, a, b, *args: None,
    "everything": lambda self, a, b, *args, **kwargs: None,
    "other_everything": lambda self, a, other, *args, **kwargs: None,
    "passes_all": lambda *args, **kwargs: None,
    "passes_rest": lambda self, *args, **kwargs: None,
    "passes_positions": lambda self, *args: None,
    "false": lambda self, a, b=False: None,
    "zero": lambda self, a, b=0: None,
    "of_an_object": lambda self, a, b=DEFAULT: None,
    "empty": lambda self, a, b=(): None,
    "of_some_versions": lambda self, a, b, c=NOT_GIVEN: None,
}


TAKES = [
    ("plain", "plain"),
    ("plain", "other_self"),
    ("plain", "by_position"),
    ("by_position", "by_position"),
    ("with_default", "with_default"),
    ("empty", "empty"),
    ("of_an_object", "of_an_object"),
    ("and_keyword", "and_keyword"),
    ("and_default_keyword", "and_default_keyword"),
    ("everything", "plain"),
    ("everything", "more"),
    ("everything", "and_keyword"),
    ("any_position", "any_position"),
    ("any_position", "plain"),
    ("plain", "everything"),
    ("everything", "everything"),
    ("plain", "passes_all"),
    ("plain", "passes_rest"),
    ("of_some_versions", "plain"),
    ("of_some_versions", "more"),
    ("of_some_versions", "required"),
    *(
        ("passes_all", other)
        for other in ("plain", "more", "required", "and_keyword", "by_position")
    ),
    *(
        ("passes_rest", other)
        for other in ("plain", "more", "required", "and_keyword", "by_position")
    ),
]
DOES_NOT_TAKE = [
    ("plain", "more"),
    ("plain", "required"),
    ("plain", "fewer"),
    ("plain", "nothing"),
    ("plain", "renamed"),
    ("plain", "other_order"),
    ("plain", "and_keyword"),
    ("plain", "and_default_keyword"),
    ("plain", "with_default"),
    ("plain", "any_position"),
    ("plain", "passes_positions"),
    ("plain", "other_everything"),
    ("everything", "other_everything"),
    ("with_default", "plain"),
    ("with_default", "false"),
    ("false", "zero"),
    ("of_an_object", "empty"),
    ("by_position", "plain"),
    ("and_keyword", "plain"),
    ("and_keyword", "and_default_keyword"),
    ("any_position", "more"),
    ("passes_positions", "plain"),
    ("of_some_versions", "fewer"),
    ("more", "required"),
]


def named(pairs):
    """Return the functions of those names as parameters of a test."""
    return [
        pytest.param(FUNCTIONS[ours], FUNCTIONS[theirs], id=f"{ours} for {theirs}")
        for ours, theirs in pairs
    ]


@pytest.mark.parametrize(("ours", "theirs"), named(TAKES))
def test_what_takes_as_much_is_put_in_place(ours, theirs):
    """Every call of the original is one that the replacement takes."""
    check(ours, theirs, "f", bound=True)


@pytest.mark.parametrize(("ours", "theirs"), named(DOES_NOT_TAKE))
def test_what_takes_something_else_is_not(ours, theirs):
    """The message has both signatures."""
    with pytest.raises(UnknownSignatureError, match=r"^f takes \(self.*\), expected \(self.*\)$"):
        check(ours, theirs, "f", bound=True)


def test_the_first_parameter_of_a_function_has_its_name():
    """Only what a method is bound to is never passed by its name."""
    with pytest.raises(UnknownSignatureError):
        check(FUNCTIONS["plain"], FUNCTIONS["other_self"], "f", bound=False)


WRAPPERS = {
    "functools": lambda function: functools.wraps(function)(lambda *args: function(*args)),
    "wrapt": lambda function: wrapt.FunctionWrapper(function, lambda f, _i, a, k: f(*a, **k)),
    "closure": lambda function: lambda *args, **kwargs: function(*args, **kwargs),
    "static": staticmethod,
    "class": classmethod,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_takes_what_it_wraps(wrap):
    """Somebody else's wrapper is no reason not to be put over it."""
    check(FUNCTIONS["plain"], wrap(FUNCTIONS["plain"]), "f", bound=True)


@pytest.mark.parametrize("name", ["functools", "wrapt", "static", "class"])
def test_a_wrapper_says_what_it_wraps(name):
    """What changed under somebody else's wrapper is seen through it."""
    with pytest.raises(UnknownSignatureError):
        check(FUNCTIONS["plain"], WRAPPERS[name](FUNCTIONS["more"]), "f", bound=True)


def test_a_builtin_is_looked_at_where_it_has_a_signature():
    """As methods of C types have, where they tell."""
    check(lambda a, b: None, operator.eq, "eq", bound=False)
    with pytest.raises(UnknownSignatureError, match=r"^eq takes \(a, b, /\), expected \(a\)$"):
        check(lambda a: None, operator.eq, "eq", bound=False)
    if not PYPY:  # there every builtin tells
        check(lambda a: None, getattr, "getattr", bound=False)


def test_a_layer_that_does_not_fit_leaves_its_owner_as_it_was():
    """The attribute is the same object as before; what it is called is in the message."""

    class Owner:
        def method(self, a, b, c=None):
            return a, b, c

    before = dict(vars(Owner))
    layer = Layer(Owner, "method", lambda original: lambda self, a, b: original(self, a, b))
    with pytest.raises(
        UnknownSignatureError, match=r"Owner\.method takes \(self, a, b, c=\.\.\.\)"
    ):
        layer.apply()
    assert dict(vars(Owner)) == before
    layer.undo()
    assert dict(vars(Owner)) == before


class Stock:
    def __init__(self, a):
        self.a = a

    def method(self, b):
        return self.a, b


@pytest.mark.parametrize("name", ["__init__", "method"])
def test_a_class_fits_if_all_of_its_methods_do(name, monkeypatch):
    """Of a class that takes another one's place each method is compared, and none that is new."""

    def stand_in(plain_class):
        class Ours(plain_class, metaclass=StandIn):
            stands_in_for = plain_class

            def __init__(self, a):
                super().__init__(a)

            def method(self, b):
                return super().method(b)

            def another(self, c): ...

        return Ours

    module = __import__(__name__)
    layer = Layer(module, "Stock", stand_in)
    layer.apply()
    layer.undo()

    original = vars(Stock)[name]
    monkeypatch.setattr(Stock, name, lambda self, a, later=None: original(self, a))
    with pytest.raises(UnknownSignatureError, match=rf"Stock\.{name} takes"):
        layer.apply()
    assert vars(module)["Stock"] is Stock


@pytest.mark.parametrize("bound", [True, False])
def test_what_is_quickly_seen_is_what_a_thorough_look_finds(bound):
    """No pair of functions passes the quick look at those that take the rest, and then fails."""
    passed = 0
    for ours, theirs in itertools.product(FUNCTIONS.values(), repeat=2):
        if signatures._takes_the_rest(ours, theirs, bound):
            passed += 1
            both = signatures._signature(ours), signatures._signature(theirs)
            assert signatures._fits(*both, bound), both
    assert passed > 20


@pytest.mark.skipif(PYPY, reason="no method is written in C there")
def test_what_is_read_from_the_text_of_a_method_in_c_is_what_a_thorough_look_finds():
    """No function passes for a method in C by its text that fails the thorough look."""
    candidates = [lambda: None, *FUNCTIONS.values(), *SIMPLE_QUEUE.values()]
    methods = [
        method
        for kind in (queue.SimpleQueue, list, str, bytes, dict)
        for method in vars(kind).values()
        if isinstance(method, MethodDescriptorType)
    ]
    passed = set()
    for ours, method in itertools.product(candidates, methods):
        if signatures._is_alike_in_c(ours, method):
            passed.add((ours, method.__qualname__))
            both = signatures._signature(ours), signatures._signature(method)
            assert None not in both
            assert signatures._fits(*both, True), both
    assert {(ours, f"SimpleQueue.{name}") for name, ours in SIMPLE_QUEUE.items()} <= passed


SIMPLE_QUEUE = {
    "put": lambda self, item, block=True, timeout=None: None,
    "put_nowait": lambda self, item: None,
    "get": lambda self, block=True, timeout=None: None,
    "get_nowait": lambda self: None,
}
"""Functions that take what the methods of ``queue.SimpleQueue`` take."""


@pytest.mark.skipif(PYPY, reason="no method is written in C there")
def test_another_default_than_that_of_a_method_in_c_is_seen():
    """Values that are equal are not the same default, as with methods in Python."""
    with pytest.raises(UnknownSignatureError):
        check(lambda self, block=1, timeout=None: None, queue.SimpleQueue.get, "get", bound=True)
