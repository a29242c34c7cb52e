"""Switching on and off: what is replaced, that it is put back exactly, and who else is there."""

from __future__ import annotations

import _thread
import asyncio.base_events
import concurrent.futures._base
import concurrent.futures.thread
import contextlib
import contextvars
import functools
import itertools
import logging
import logging.handlers
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.process
import queue
import sched
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import wrapt
from forms import FORMS, WAIT, ThreadTarget, Timer, without_context
from opentelemetry.context import attach, detach, get_current, get_value, set_value

from interpreters import THREADS_INHERIT
from otel_concurrency import ConcurrencyInstrumentor, _instrumentor
from otel_concurrency._core import handoff
from otel_concurrency._core.function_proxies import FunctionProxy, function_of

OWNERS = (
    threading,
    threading.Thread,
    threading.Timer,
    _thread,
    concurrent.futures._base,
    concurrent.futures._base.Executor,
    concurrent.futures._base.Future,
    concurrent.futures.thread,
    concurrent.futures.thread.ThreadPoolExecutor,
    concurrent.futures.thread._WorkItem,
    asyncio.base_events,
    asyncio.base_events.BaseEventLoop,
    asyncio.AbstractEventLoop,
    asyncio.queues,
    asyncio.Queue,
    asyncio.LifoQueue,
    asyncio.PriorityQueue,
    sched,
    sched.Event,
    sched.scheduler,
    queue,
    queue.Queue,
    queue.LifoQueue,
    queue.PriorityQueue,
    multiprocessing.managers.Server,
)

SETTINGS = ("threading", "futures", "asyncio", "sched", "queue")


def through(make):
    """Return a form that puts the work to a queue, from which somebody gets it and does it."""

    @contextlib.contextmanager
    def form():
        yield types.SimpleNamespace(hand_off=hand_off)

    def hand_off(work):
        items = make()
        items.put_nowait(work)
        contextvars.Context().run(lambda: items.get_nowait()())
        return types.SimpleNamespace(wait=lambda: None)

    return form


carried = {
    "threading": [ThreadTarget, Timer],
    "futures": [form for form in FORMS if form.setting == "futures"][:1],
    "sched": [form for form in FORMS if form.setting == "sched"],
    "asyncio": [
        *(form for form in FORMS if "own worker" in form.name),
        through(asyncio.Queue),
        through(asyncio.LifoQueue),
    ],
    "queue": [through(queue.Queue), through(lambda: queue.SimpleQueue())],
}
"""Forms that show whether a primitive is on."""


def value():
    """Return what tells the contexts of a test apart."""
    return get_value("value")


def seen_by(form):
    """Return what :func:`value` is in work that is handed off where it is ``a``."""
    seen = []
    token = attach(set_value("value", "a"))
    try:
        with form() as opened:
            opened.hand_off(lambda: seen.append(value())).wait()
    finally:
        detach(token)
    (value_seen,) = seen
    return value_seen


def are_on():
    """Return the settings of the primitives that carry context."""
    return {
        setting for setting, forms in carried.items() if {seen_by(form) for form in forms} == {"a"}
    }


def carried_with(settings):
    """Return the settings, with those of what CPython carries where it starts threads itself."""
    by_cpython = THREADS_INHERIT and "threading" not in settings
    return settings | ({"threading", "futures"} if by_cpython else set())


def owners():
    """Return all that may be patched: the list above, and what the library says that it patches."""
    found = list(OWNERS)
    for primitive in _instrumentor.primitives_in_use.values():
        found += [layer.owner for layer in layers_of(primitive) if layer.owner not in found]
    return found


def layers_of(primitive):
    """Return the layers of a primitive, also those that a pairing of queues has set."""
    for patches in primitive.layers.values():
        for patch in patches:
            yield from getattr(patch, "layers", (patch,))


def snapshot():
    """Return the attributes of all that may be patched."""
    return {owner: dict(vars(owner)) for owner in owners()}


def differences(before):
    """Return (owner, name) of every attribute that is not the same object as ``before``."""
    missing = object()
    return [
        (owner, name)
        for owner, attributes in before.items()
        for name in {**attributes, **vars(owner)}
        if vars(owner).get(name, missing) is not attributes.get(name, missing)
    ]


@pytest.fixture
def instrumentor(untouched):
    """Return the instrumentor, and switch it off before what it touched is compared."""
    instrumentor = ConcurrencyInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def untouched():
    """Switch on and off once, so that all layers are known, and compare after the test."""
    ConcurrencyInstrumentor().instrument()
    ConcurrencyInstrumentor().uninstrument()
    handoff.any_adopted = True  # the first item of the process sets it, and nothing takes it back
    before = snapshot()
    yield before
    assert differences(before) == []


# Exactly


def test_everything_is_as_before_by_identity(instrumentor, untouched):
    """After ``uninstrument()`` each attribute of each touched owner is the object of before."""
    before = snapshot()

    instrumentor.instrument()
    replaced = differences(before)
    instrumentor.uninstrument()

    assert len(replaced) >= 10
    assert differences(before) == []
    assert list(before[threading.Thread]) == list(vars(threading.Thread))
    assert set(owners()) >= {owner for owner, _ in replaced}


@pytest.mark.alone
@pytest.mark.parametrize("setting", SETTINGS)
def test_one_primitive_is_switched_on_by_itself(setting, instrumentor, untouched):
    """Only the primitive that is on carries context, and undoes its own patches."""
    instrumentor.instrument(policy="off", **{setting: "parent"})
    assert are_on() == carried_with({setting})
    instrumentor.uninstrument()

    assert differences(untouched) == []
    assert are_on() == carried_with(set())


@pytest.mark.alone
@pytest.mark.parametrize("setting", SETTINGS)
def test_one_primitive_is_off_and_not_patched(setting, instrumentor, untouched):
    """A primitive that is off leaves its attributes as they are; the others carry on.

    Another primitive may patch other attributes of the same class.
    """
    layers = layers_of(_instrumentor.primitives_in_use[setting])
    patched = {(layer.owner, layer.name) for layer in layers}
    instrumentor.instrument(**{setting: "off"})
    try:
        assert patched
        assert patched.isdisjoint(differences(untouched))
        # A pool is covered by asyncio's own patch only where futures is off.
        assert are_on() == carried_with({*SETTINGS} - {setting})
    finally:
        instrumentor.uninstrument()


def test_rounds_do_not_pile_up(instrumentor, untouched):
    """After many rounds there is one layer, and none after the last."""
    for _ in range(20):
        instrumentor.instrument()
        instrumentor.uninstrument()
    instrumentor.instrument()
    try:
        assert layers_of_ours(threading.Thread, "start") == 1
        assert layers_of_ours(concurrent.futures.Future, "add_done_callback") == 1
    finally:
        instrumentor.uninstrument()


@pytest.mark.alone
def test_instrumenting_twice_is_instrumenting_once(instrumentor, untouched, caplog):
    """The second ``instrument()`` changes nothing, whichever instance it is called on."""
    instrumentor.instrument()
    once = snapshot()
    ConcurrencyInstrumentor().instrument()

    assert differences(once) == []
    assert are_on() == carried_with({*SETTINGS})
    instrumentor.uninstrument()
    ConcurrencyInstrumentor().uninstrument()
    assert are_on() == carried_with(set())


def test_instrumenting_from_eight_threads(instrumentor, untouched):
    """However many threads switch it on, and off, at once, there is one layer, and then none."""
    for switch in ("instrument", "uninstrument"):
        barrier = threading.Barrier(8)

        def race(switch=switch, barrier=barrier):
            barrier.wait(WAIT)
            getattr(ConcurrencyInstrumentor(), switch)()

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        if switch == "instrument":
            assert are_on() == carried_with({*SETTINGS})
            assert layers_of_ours(concurrent.futures.Future, "add_done_callback") == 1
    assert not instrumentor.is_instrumented_by_opentelemetry


# All or nothing


ESSENTIAL = {
    ("threading", "threading"): [
        (threading.Thread, "start"),
        (threading.Thread, "_bootstrap_inner"),
    ],
    ("futures", "concurrent.futures._base"): [(concurrent.futures.Future, "add_done_callback")],
    ("futures", "concurrent.futures.thread"): [
        (concurrent.futures.Future, "set_exception"),
        (concurrent.futures.thread, "_WorkItem"),
        (concurrent.futures.thread, "_worker"),
    ],
    ("sched", "sched"): [(sched, "Event"), (sched.scheduler, "cancel")],
    ("queue", "queue"): [(queue.Queue, "_put"), (queue.Queue, "_qsize"), (queue, "SimpleQueue")],
    ("queue", "logging.handlers"): [(logging.handlers.QueueListener, "_monitor")],
    ("asyncio", "asyncio.queues"): [(asyncio.Queue, "_get"), (asyncio.Queue, "task_done")],
    ("multiprocessing", "multiprocessing.pool"): [
        (multiprocessing.pool.Pool, "_guarded_task_generation"),
        (multiprocessing.pool, "worker"),
    ],
    ("multiprocessing", "multiprocessing.process"): [
        (multiprocessing.process.BaseProcess, "_bootstrap")
    ],
}


@pytest.mark.alone
@pytest.mark.parametrize(
    ("setting", "module", "owner", "name"),
    [
        pytest.param(setting, module, owner, name, id=f"{module}, {name}")
        for (setting, module), attributes in ESSENTIAL.items()
        for owner, name in attributes
    ],
)
def test_a_module_that_cannot_be_patched_whole_is_not_patched(
    setting, module, owner, name, instrumentor, untouched, monkeypatch, caplog
):
    """Where Python lacks an attribute, its module is left alone, with one line of log.

    The other modules of the same primitive are patched, and so is every other primitive.
    """
    with monkeypatch.context() as patch:
        patch.delattr(owner, name)
        before = snapshot()
        instrumentor.instrument()
        changed = differences(before)
    try:
        in_use = _instrumentor.primitives_in_use.values()
        for primitive in (each for each in in_use if each.seam.active):
            for each, layers in primitive.layers.items():
                is_it = (primitive.name, each) == (setting, module)
                for layer in itertools.chain(*(getattr(one, "layers", (one,)) for one in layers)):
                    if layer.name == "_adjust_thread_count" and setting != "threading":
                        continue  # not needed beside threading
                    assert layer.is_on_top is not is_it, (each, layer.owner, layer.name)
                    assert not is_it or (layer.owner, layer.name) not in changed
        assert are_on() >= {*SETTINGS} - {setting}
        (record,) = [r for r in caplog.records if r.name.startswith("otel_concurrency")]
        assert record.levelno == logging.WARNING
        assert not record.exc_info
        assert setting in record.getMessage()
        assert name in record.getMessage()
    finally:
        instrumentor.uninstrument()

    instrumentor.instrument()
    assert are_on() == carried_with({*SETTINGS})
    instrumentor.uninstrument()


# Under and over somebody else's patch


def with_wraps(function):
    """Patch as a decorator does."""

    @functools.wraps(function)
    def patch(*args, **kwargs):
        return function(*args, **kwargs)

    return patch


def without_wraps(function):
    """Patch as somebody who does not use ``functools.wraps``."""

    def patch(*args, **kwargs):
        return function(*args, **kwargs)

    return patch


def with_wrapt(function):
    """Patch as most instrumentation libraries do, and look at the instance."""

    def wrapper(wrapped, instance, args, kwargs):
        assert instance is not None or wrapped.__name__ == "_worker"
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(function, wrapper)


PATCHED_TOO = [
    (threading.Thread, "start"),
    (threading.Thread, "_bootstrap_inner"),
    (concurrent.futures.Future, "add_done_callback"),
    (concurrent.futures.Future, "cancel"),
    (ThreadPoolExecutor, "submit"),
    (concurrent.futures.thread._WorkItem, "__init__"),
    (concurrent.futures.thread._WorkItem, "run"),
    (concurrent.futures.thread, "_worker"),
    (asyncio.BaseEventLoop, "run_in_executor"),
    (sched.scheduler, "cancel"),
]
every_neighbour = pytest.mark.parametrize(
    "patch", [with_wraps, without_wraps, with_wrapt], ids=lambda patch: patch.__name__
)
everywhere = pytest.mark.parametrize(
    ("owner", "name"), [pytest.param(*where, id=where[1]) for where in PATCHED_TOO]
)


def layers_of_ours(owner, name):
    """Return how many functions of the library's are on the way to the original."""
    seen, pending = [], [vars(owner)[name]]
    while pending:
        thing = pending.pop()
        if any(thing is other for other in seen):
            continue
        seen.append(thing)
        if isinstance(thing, FunctionProxy):
            pending.append(function_of(thing))
        pending += [w for w in [getattr(thing, "__wrapped__", None)] if w is not None]
        for cell in getattr(thing, "__closure__", None) or ():
            if isinstance(cell.cell_contents, (types.FunctionType, wrapt.FunctionWrapper)):
                pending.append(cell.cell_contents)
    return sum(
        thing.__code__.co_filename.split("/")[-2:-1] == ["_primitives"]
        for thing in seen
        if isinstance(thing, types.FunctionType)
    )


@pytest.mark.alone
@everywhere
@every_neighbour
def test_a_patch_that_was_there_before_is_there_after(owner, name, patch, instrumentor, untouched):
    """We go on top of it, and undo to exactly it."""
    original = vars(owner)[name]
    theirs = patch(original)
    setattr(owner, name, theirs)
    try:
        instrumentor.instrument()
        assert are_on() == carried_with({*SETTINGS})
        instrumentor.uninstrument()
        assert vars(owner)[name] is theirs
        assert are_on() == carried_with(set())
    finally:
        setattr(owner, name, original)


@pytest.mark.alone
@everywhere
@every_neighbour
def test_a_patch_that_came_later_stays_over_us(owner, name, patch, instrumentor, untouched):
    """We become a pass-through under it, are revived under it, and never stack another layer."""
    original = vars(owner)[name]
    instrumentor.instrument()
    ours = vars(owner)[name]
    theirs = patch(ours)
    setattr(owner, name, theirs)
    try:
        assert are_on() == carried_with({*SETTINGS})
        layers = layers_of_ours(owner, name)
        for _ in range(2):
            instrumentor.uninstrument()
            assert vars(owner)[name] is theirs
            assert are_on() == carried_with(set())

            instrumentor.instrument()
            assert vars(owner)[name] is theirs
            assert are_on() == carried_with({*SETTINGS})
            assert layers_of_ours(owner, name) == layers

        setattr(owner, name, ours)  # they undo theirs first
        instrumentor.uninstrument()
        assert vars(owner)[name] is original
    finally:
        setattr(owner, name, original)
        instrumentor.uninstrument()


@pytest.mark.alone
@everywhere
@every_neighbour
def test_a_patch_that_goes_after_us_leaves_a_pass_through(
    owner, name, patch, instrumentor, untouched
):
    """What is left of us when they undo theirs last does nothing, and goes with our next round."""
    original = vars(owner)[name]
    instrumentor.instrument()
    ours = vars(owner)[name]
    setattr(owner, name, patch(ours))
    try:
        instrumentor.uninstrument()
        setattr(owner, name, ours)
        assert are_on() == carried_with(set())

        instrumentor.instrument()
        assert are_on() == carried_with({*SETTINGS})
        instrumentor.uninstrument()
        assert vars(owner)[name] is original
    finally:
        setattr(owner, name, original)


ON = list(itertools.permutations(("ours", "theirs")))


@pytest.mark.parametrize("on", ON, ids=lambda order: f"on {order[0]} first")
@pytest.mark.parametrize("off", ON, ids=lambda order: f"off {order[0]} first")
def test_beside_the_official_instrumentor(on, off, instrumentor, untouched, official):
    """In every order of switching on and off, work has its parent as long as one of them is on."""
    both = {"ours": instrumentor, "theirs": official}
    shared = [*carried["threading"], *carried["futures"]]
    for name in on:
        both[name].instrument()
        assert {seen_by(form) for form in shared} == {"a"}
    assert are_on() == carried_with({*SETTINGS})
    assert next_on_a_worker_first_used_in_a_context() == {}

    both[off[0]].uninstrument()
    assert {seen_by(form) for form in shared} == {"a"}
    assert are_on() >= ({"threading", "futures"} if off[0] == "ours" else {*SETTINGS})

    both[off[1]].uninstrument()
    assert are_on() == carried_with(set())

    both["ours"].instrument()
    assert are_on() == carried_with({*SETTINGS})
    assert layers_of_ours(concurrent.futures.Future, "add_done_callback") == 1
    assert layers_of_ours(threading.Thread, "start") == 1
    both["ours"].uninstrument()


def next_on_a_worker_first_used_in_a_context():
    """Return the context of work that is handed off without one, by whoever else is there too."""
    with ThreadPoolExecutor(1) as pool:
        token = attach(set_value("value", "a"))
        pool.submit(value).result(WAIT)
        detach(token)
        return without_context(pool.submit, get_current).result(WAIT)


# Modules that are imported later

BESIDE = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from opentelemetry.context import attach, get_value, set_value
from otel_concurrency import ConcurrencyInstrumentor
import otel_concurrency._instrumentor
for name in [name for name in sys.modules if name.split(".")[0] in ("sched",)]:
    del sys.modules[name]

def carried():
    import sched
    scheduler, seen = sched.scheduler(), []
    def run():
        attach(set_value("value", "a"))
        scheduler.enter(0, 1, lambda: seen.append(get_value("value")))
    import contextvars
    contextvars.Context().run(run)
    scheduler.run()
    return seen[0] == "a"
"""


def run_python(code):
    """Run ``code`` after :data:`BESIDE` in a process of its own; return its output and errors."""
    run = subprocess.run(
        [sys.executable, "-c", BESIDE + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split(), run.stderr


def test_instrumenting_imports_nothing_that_the_program_has_not():
    """Modules of the standard library wait for the program to import them.

    But for `gc`, which is built into the interpreter: it is at work in any program.
    """
    out, err = run_python("""
before = set(sys.modules)
ConcurrencyInstrumentor().instrument()
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - {"otel_concurrency", "gc"}))
""")

    assert (out, err) == ([], "")


def test_a_module_that_is_imported_after_switching_on_is_patched():
    """The first import patches it; switching off undoes it; switching on again patches it again."""
    out, err = run_python("""
instrumentor = ConcurrencyInstrumentor()
instrumentor.instrument()
assert "sched" not in sys.modules
print(carried())
instrumentor.uninstrument()
print(carried())
instrumentor.instrument()
print(carried())
""")

    assert (out, err) == (["True", "False", "True"], "")


def test_a_module_that_is_imported_after_switching_off_is_not_patched():
    """A hook that cannot be unregistered asks whether it is still wanted."""
    out, err = run_python("""
instrumentor = ConcurrencyInstrumentor()
instrumentor.instrument()
instrumentor.uninstrument()
assert "sched" not in sys.modules
print(carried())
import sched
print(sched.Event.__mro__[1] is tuple)
instrumentor.instrument()
print(carried())
""")

    assert (out, err) == (["False", "True", "True"], "")


def test_a_hook_that_raises_does_not_fail_the_programs_import():
    """The program gets its module; the fault is logged once."""
    out, err = run_python("""
import otel_concurrency._primitives._sched as advice
def fail(module, seam):
    raise RuntimeError("injected")
advice.MODULES["sched"] = fail
ConcurrencyInstrumentor().instrument()
import sched
print(carried())
import importlib
importlib.reload(sched)
print(carried())
""")

    assert out == ["False", "False"]
    assert [line for line in err.splitlines() if line.startswith(("WARNING", "ERROR"))] == [
        line for line in err.splitlines() if "injected" in line and line.startswith("WARNING")
    ]
    assert len([line for line in err.splitlines() if line.startswith("WARNING")]) == 1


def test_a_hook_that_fails_in_our_own_machinery_does_not_fail_the_programs_import():
    """Also where the fault is not in a primitive's advice but in what calls it."""
    out, err = run_python("""
import otel_concurrency._patched as ours
def fail(*args):
    raise RuntimeError("injected")
ConcurrencyInstrumentor().instrument()
ours.patching.apply_all = ours.patching.undo_all = fail
import sched
print(carried())
""")

    assert out == ["False"]
    assert "injected" in err


@pytest.mark.alone
def test_switching_on_never_raises(monkeypatch, caplog, instrumentor):
    """A fault while switching on is logged, and the other instrumentors get their turn."""

    def fail(*args, **kwargs):
        raise RuntimeError("injected")

    monkeypatch.setattr(_instrumentor._settings, "read", fail)

    instrumentor.instrument()
    instrumentor.uninstrument()

    assert "injected" in caplog.text
