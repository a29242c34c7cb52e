"""Has one function of the library raise after the other, and runs a program each time.

``python injected.py MODULE`` loads the library with a call put into each function of ``MODULE``,
which raises where it is that function's turn. It stands where a fault is to be expected: inside
each ``try`` that catches one, and at the start of each function that has none. For every such place
a fork of this process switches the library on, runs the program, switches it off; a line of JSON
says what came of it.

A program has parts. When it is run with no fault, it is noted which of them reach a place: only
these are run with the fault there, or all of them, where the place is reached outside of them.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import mmap
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

SOURCE = Path(importlib.util.find_spec("otel_concurrency").origin).parent  # type: ignore[union-attr, arg-type]
PACKAGE = "otel_concurrency"
SECONDS = 60

STAND_INS = {
    "Call": "is called, compared and shown in the place of the program's callable",
    "BodyCall": "as Call",
    "Event": "the program's own event",
    "SimpleQueue": "the program's own queue",
    "StandIn": "answers for the program's isinstance()",
    "FunctionProxy": "a function of the standard library",
    "_Handler": "the handler of a signal",
    "_Requests": "a connection, to a manager's server",
    "_Request": "as _Requests",
    "Posted": "as Call",
    "PostedAgain": "as Call",
    "_BuiltinWrapper": "answers for a builtin",
    "Messages": "the program's own asynchronous generator",
    "_Buffer": "a deque of the standard library's to multiprocessing.Queue",
    "_LastGet": "the get of a program's queue",
    "_Observations": "an observer's own list",
    "_Inqueue": "a pool's queue to its worker",
    "_Pipe": "as _Inqueue",
    "_Outqueue": "as _Inqueue",
    "_WorkItem": "an executor's work item",
    "_Handed": "as Call",
    "_WithHeaders": "as Call",
    "Turn": "the attributes of a worker's turn",
    "_CallQueue": "as _Inqueue",
    "Departure": "the attributes of a child's end",
    "_ResultQueue": "as _Inqueue",
    "Instrumented": "is pickled with the program's process",
    "ForkingPickler": "the standard library's pickler",
    "Fifo": "a deque",
    "PortableCall": "is pickled in the place of the program's callable",
    "_Task": "as PortableCall",
    "_Pickled": "as PortableCall",
    "_Received": "as Call, and as PortableCall",
    "_PortableHeaders": "as PortableCall, in the place of an argument",
    "_Arguments": "the program's arguments, to ray",
    "_Execution": "what ray enters around a call",
    "_Pickle": "the module pickle, to anyio",
    "_Kill": "the kill of anyio's process",
    "Future": "the future that a queue of tornado's returns",
    "Queue": "a queue, to gevent",
    "Message": "is pickled as huey's own",
    "_Got": "what a consumer of Channels receives by, and dispatches with",
    "_Tasks": "the queue of a worker of django-q2's",
    "HandOff": "the program's own object",
    "_PagesCall": "as Call, to cassandra-driver",
    "_Run": "as Call, to Qt",
    "_WeakSlot": "the program's method, to Qt",
    "_Timeout": "what a timer of Qt's does",
    "_Rounds": "as _Timeout",
    "_Scheduled": "as Call, to kivy",
    "_WeaklyScheduled": "the program's method, to kivy",
}
"""Classes that the program calls itself: what they do, they do in guarded blocks."""

PASS_ON = {
    "ConcurrencyInstrumentor": "the program's own calls, to OpenTelemetry's base class",
    "advice": "the program's call of a builtin",
    "as_flow_that_begins": "as Call",
    "_with_nothing_adopted": "as Call",
    "wrapper": "as advice",
    "_start_new_thread": "as advice",
    "on_throw": "an event to a function that is guarded",
    "on_end": "as on_throw",
    "_send_message": "the message of a manager or its caller",
    "_receive_message": "as _send_message",
    "_plain": "one question about a type",
    "seen": "an event's values to the program",
    "_round": "the body of a thread",
    "each": "the program's function for one item",
    "_in_context": "the program's own iterator",
    "put_task": "the put of a pool's queue",
    "run_in": "the worker's function for one task",
    "awaited_in": "the program's coroutine",
    "_give_back": "as awaited_in",
    "in_context_of": "the step of a run of llama-index's",
    "wrap": "capture() and its method wrap(), by hand",
    "clean": "an empty hand-off, by hand",
    "coroutine": "the program's coroutine function",
    "generator": "the program's generator function",
    "async_generator": "the program's asynchronous generator function",
    "_first_step": "one question to the interpreter",
    "caller": "one question to the interpreter, whose error it expects",
    "is_called_by": "as caller",
}
"""Functions, and a class, that do nothing but pass on, by hand, what the program calls, or ask."""

ADAPTER = "_adapters._"
"""What the name of an adapter's module begins with."""

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef

turn: int | None = None
struck = mmap.mmap(-1, 1)
"""Shared with children: whether a place had its turn."""
reached: mmap.mmap | None = None
"""Shared with children, for each place: a byte for what is outside of the parts, and for each part.
"""
width = 1
at_work = 0
"""Which of these bytes is that of the part at work."""


class InjectedError(Exception):
    """A fault of the library's own."""


def strike(number: int) -> None:
    """Raise, if it is this place's turn."""
    if number == turn:
        struck[0] = 1
        raise InjectedError
    if turn is None and reached is not None:
        reached[number * width + at_work] = 1


class Injector(ast.NodeTransformer):
    """Puts a call of :func:`strike` into every place of a module."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self._path: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()
        return node

    def visit_FunctionDef(self, node: AnyFunction) -> ast.AST:
        self._path.append(node.name)
        guards = [one for one in _own(node) if isinstance(one, ast.Try) and _is_guard(one)]
        for guard in guards:
            guard.body.insert(0, self._call(guard))
        if not guards and not self._is_stand_in(node):
            start = 1 if ast.get_docstring(node, clean=False) is not None else 0
            node.body.insert(start, self._call(node))
        self.generic_visit(node)
        self._path.pop()
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # ast's own name

    def _is_stand_in(self, node: AnyFunction) -> bool:
        """Whether the program calls it in the place of its own."""
        wraps = any("functools.wraps" in ast.unparse(one) for one in node.decorator_list)
        names = self._path[-2:]
        return wraps or names[0] in STAND_INS or not PASS_ON.keys().isdisjoint(names)

    def _call(self, node: Any) -> ast.stmt:
        self.places.append(f"{'.'.join(self._path)}:{node.lineno}")
        call = ast.parse(f"__strike__({len(self.places) - 1})").body[0]
        return ast.fix_missing_locations(ast.copy_location(call, node.body[0]))


def _own(function: AnyFunction) -> list[ast.AST]:
    """Return the nodes of a function that are not in another one inside it."""
    found: list[ast.AST] = []
    pending = list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        found.append(node)
        if not isinstance(node, AnyFunction | ast.Lambda | ast.ClassDef):
            pending += ast.iter_child_nodes(node)
    return found


def _is_guard(node: ast.Try) -> bool:
    """Whether it catches any fault, and does not raise it again."""
    return any(
        (handler.type is None or "Exception" in ast.unparse(handler.type).split("."))
        and not any(isinstance(one, ast.Raise) for one in ast.walk(handler))
        for handler in node.handlers
    )


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module with the calls in it."""

    def __init__(self, module: str) -> None:
        self._module = f"{PACKAGE}.{module}"
        self.injector = Injector()

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        self._code = Path(spec.origin or "")
        spec.loader = self
        return spec

    def exec_module(self, module: Any) -> None:
        tree = self.injector.visit(ast.parse(self._code.read_text(encoding="utf-8")))
        exec(compile(tree, str(self._code), "exec"), module.__dict__)


BESIDE_THE_PROGRAM = ("_cli", "_observer", "_status", "_trace_report", "testing", "pytest_plugin")
"""Packages and modules that nothing but a tool or a test imports."""


def modules() -> list[str]:
    """Return the modules of the library that run in a program."""
    names = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(SOURCE.rglob("*.py"))
        if "def " in path.read_text(encoding="utf-8")
    ]
    facts = ("__init__", "__main__", "environment_variables", "package", "version")
    return [
        name
        for name in names
        if name not in facts
        and not name.startswith(BESIDE_THE_PROGRAM)
        and name not in ("_clean_starts.table", "_clean_starts.functions", "_clean_starts.tasks")
        and not (name.startswith(ADAPTER) and not _is_there(name.removeprefix(ADAPTER)))
    ]


def _is_there(adapter: str) -> bool:
    """Whether the library is installed that an adapter is for."""
    from otel_concurrency._adapters import ADAPTERS

    patched = next(iter(ADAPTERS[adapter].values()))
    return importlib.util.find_spec(patched[0].split(".")[0]) is not None


def _parts(module: str) -> tuple[Any, ...]:
    """Return what of the programs concerns a module."""
    import everything  # sets a tracer provider: a test that imports this module wants none
    import libraries

    if module.startswith(ADAPTER):
        adapter = module.removeprefix(ADAPTER)
        if adapter in libraries.IMPORTED_ONCE:
            importlib.import_module(libraries.IMPORTED_ONCE[adapter])
        return libraries.PROGRAMS[adapter]
    if module in libraries.SHARED:
        users = filter(_is_there, libraries.SHARED[module])
        return tuple(part for user in users for part in libraries.PROGRAMS[user])
    across = [parts for name, parts in everything.ACROSS.items() if name in module]
    return across[0] if across else everything.IN_PROCESS


class Logged(logging.Handler):
    """Keeps what the library says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def main(module: str) -> None:
    """Take one place after the other."""
    finder = Finder(module)
    sys.meta_path.insert(0, finder)
    builtins.__strike__ = strike  # type: ignore[attr-defined]
    from otel_concurrency import ConcurrencyInstrumentor

    importlib.import_module(f"{PACKAGE}.{module}")
    parts = _parts(module)
    switch = ConcurrencyInstrumentor()
    settings = {
        "subprocess": "parent",
        "metrics": module in ("_metrics", "_linking.root_places"),
        "report_orphans": module in ("_orphans", "_core.frames"),
    }
    _, plain = in_fork(lambda: _results(parts))
    places = finder.injector.places
    attempt = functools.partial(_attempt, plain=plain, switch=switch, settings=settings)
    _note_what_is_reached(len(places), len(parts))
    attempt("nowhere", None, parts)
    for number, place in enumerate(places):
        some = _parts_that_reach(number, parts)
        if not some or not attempt(place, number, some, is_last=some is parts):
            attempt(place, number, parts)


def _note_what_is_reached(places: int, parts: int) -> None:
    global reached, width
    width = 1 + parts
    reached = mmap.mmap(-1, max(1, places) * width)


def _parts_that_reach(number: int, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    assert reached is not None
    outside, *inside = reached[number * width : (number + 1) * width]
    if outside or all(inside):
        return parts
    return tuple(part for part, reaches in zip(parts, inside, strict=True) if reaches)


def _attempt(
    place: str,
    number: int | None,
    parts: tuple[Any, ...],
    *,
    plain: dict[str, str],
    switch: Any,
    settings: dict[str, Any],
    is_last: bool = True,
) -> bool:
    """Run the parts with a fault in a place, and say what came of it.

    Return False, and say nothing, where nothing came of it and this is not to be the last attempt.
    """
    status, result = in_fork(functools.partial(_try, number, parts, plain, switch, settings))
    result = result or {"wrong": [f"ended with status {status}"]}
    if not is_last and result.get("struck") is False and not result["wrong"]:
        return False
    print(json.dumps({"place": place, **result}), flush=True)
    return True


def in_fork(function: Any) -> tuple[int, Any]:
    """Call a function in a fork of this process; return its status, and what JSON keeps of it."""
    struck[0] = 0
    with tempfile.TemporaryFile("w+") as outcome:
        child = os.fork()
        if not child:
            os.setsid()
            signal.alarm(SECONDS)
            json.dump(function(), outcome)
            outcome.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has started and did not get to end
        outcome.seek(0)
        said = outcome.read()
    return status, json.loads(said) if said else None


def _results(parts: tuple[Any, ...]) -> dict[str, str]:
    import everything

    def begin(part: Any) -> None:
        global at_work
        at_work = 1 + parts.index(part)

    return {name: repr(result) for name, result in everything.run(parts, begin).items()}


def _try(
    number: int | None, parts: Any, plain: dict[str, str], switch: Any, settings: dict[str, Any]
) -> dict[str, Any]:
    global at_work, turn
    logged = Logged()
    logger = logging.getLogger(PACKAGE)
    logger.addHandler(logged)
    logger.propagate = False
    turn = number
    wrong: list[str] = []
    try:
        switch.instrument(**settings)
        results = _results(parts)
        wrong += [
            f"{name}: {result}, and not {plain[name]}"
            for name, result in results.items()
            if result != plain[name]
        ]
        at_work = 0
        switch.uninstrument()
    except BaseException:
        wrong.append(traceback.format_exc())
    return {"wrong": wrong, "logged": logged.lines, "struck": bool(struck[0])}


if __name__ == "__main__":
    main(sys.argv[1])
