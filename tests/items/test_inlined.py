"""The hot paths contain the bodies of functions that others call: each pair must stay the same."""

from __future__ import annotations

import ast
import inspect
import queue
import textwrap

import pytest

from otel_concurrency._core.handoff import Seam
from otel_concurrency._items import adoption, reordered
from otel_concurrency._items.pairs import Fifo
from otel_concurrency._primitives import _asyncio, _queue


def function(owner, name):
    """Return the syntax tree of a function, also of one inside another."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert len(found) == 1
    return found[0]


class Renamed(ast.NodeTransformer):
    """Puts an expression in the place of a name."""

    def __init__(self, expressions):
        self._expressions = {name: ast.parse(text).body[0].value for name, text in expressions}

    def visit_Name(self, node):
        return self._expressions.get(node.id, node)


def trees(nodes, **expressions):
    """Return what can be compared of nodes, with ``expressions`` in the place of names."""
    renamed = Renamed(expressions.items())
    text = "\n".join(ast.unparse(node) for node in nodes)
    return [ast.dump(renamed.visit(node)) for node in ast.parse(text).body]


def without_docstring(tree):
    """Return the statements of a function's body."""
    return tree.body[1:] if ast.get_docstring(tree) else tree.body


def contains(tree, statements):
    """Whether some body inside ``tree`` contains these statements, one after the other."""
    bodies = [
        trees(body)
        for node in ast.walk(tree)
        for body in (getattr(node, "body", None), getattr(node, "orelse", None))
        if isinstance(body, list)
    ]
    length = len(statements)
    return any(
        body[start : start + length] == statements for body in bodies for start in range(len(body))
    )


def is_call(node):
    """Whether a node is a call."""
    return isinstance(node, ast.Call)


def branches(statement):
    """Return the tests of an ``if`` and what follows it, with the calls that they lead to."""
    found = []
    while isinstance(statement, ast.If):
        first = [ast.dump(node) for node in ast.walk(statement.body[0]) if is_call(node)]
        found.append((ast.dump(statement.test), first[:1]))
        statement = (statement.orelse or [None])[0]
    return found


@pytest.mark.parametrize("hook", ["_put", "_get"])
def test_the_hooks_of_threads_and_of_tasks_are_the_same(hook):
    """They differ in the name of the attribute that holds the container."""
    threads, tasks = (function(module._inlined, hook) for module in (_queue, _asyncio))
    assert ast.dump(threads) == ast.dump(tasks).replace("'_queue'", "'queue'")


@pytest.mark.parametrize("module", [_queue, _asyncio])
def test_an_item_is_paired_as_by_the_method(module):
    """What ``_put`` contains is ``Fifo.put``."""
    body = without_docstring(function(Fifo, "put"))
    expected = trees(body, self="pairs", context="get_current()", size="len(container)")
    assert contains(function(module._inlined, "_put"), expected)


def test_an_item_of_a_stack_is_paired_as_by_the_method():
    """The hook of ``LifoQueue._put`` contains ``Fifo.put`` too."""
    body = without_docstring(function(Fifo, "put"))
    expected = trees(body, self="pairs", context="get_current()", size="len(container)")
    assert contains(function(reordered.of_last_in_first_out, "_put"), expected)


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("kind", [queue.LifoQueue, queue.PriorityQueue])
@pytest.mark.parametrize("method", ["_put", "_get", "_qsize"])
def test_the_stock_methods_are_known_by_heart(kind, method):
    """On each Python their bodies are recognized, so that the hooks contain them."""
    hook = vars(kind)[method]
    assert hook.__code__.co_filename == reordered.__file__
    assert hook.__wrapped__.__module__ == "queue"


@pytest.mark.parametrize("module", [_queue, _asyncio])
def test_an_item_is_known_as_by_the_method(module):
    """The test of the size in ``_get`` is that of ``Fifo.take``."""
    test = function(Fifo, "take").body[1].test
    (expected,) = trees([ast.Expr(test)], self="pairs", size="len(container)")
    tests = [
        dumped
        for node in ast.walk(function(module._inlined, "_get"))
        if isinstance(node, ast.Compare)
        for dumped in trees([ast.Expr(node)])
    ]
    assert expected in tests


def test_an_item_of_a_simple_queue_is_handed_over_as_by_the_function():
    """What ``deliver`` contains is ``Seam.changed``, and lets go where the seam is off."""
    changed = without_docstring(function(Seam, "changed"))[0]
    changed.test = changed.test.values[1]  # that there is a context is known already
    deliver = function(_queue._simple_queue, "deliver")
    off, *_ = branches(without_docstring(function(adoption, "arrive"))[0])
    (attempt,) = (node for node in deliver.body if isinstance(node, ast.Try))
    assert contains(deliver, trees([changed], self="seam"))
    assert branches(attempt.body[0])[0] == off
