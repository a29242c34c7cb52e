"""Qt, by each of its bindings in a process of its own: the two cannot be in one."""

from __future__ import annotations

import json

import pytest
from suite import IMPORT_FIRST, INSTRUMENT_FIRST, run_program

BINDINGS = ("PySide6", "PyQt6")

PROGRAM = """
import contextvars
import gc
import json
import threading
import weakref

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

QtCore = sys.modules[BINDING + ".QtCore"]
tracer = TracerProvider().get_tracer("tests")
app = QtCore.QCoreApplication([])
pool = QtCore.QThreadPool()
pool.setMaxThreadCount(1)
seen, failed = {}, []


def look(name):
    with tracer.start_as_current_span(name) as span:
        links = [[link.context.span_id, link.attributes["otel_concurrency.link.primitive"]]
                 for link in span.links]
        seen[name] = [span.parent and span.parent.span_id, links, baggage.get_baggage("tenant")]
    context.attach(context.set_value("forgotten", 1))


class Runnable(QtCore.QRunnable):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def run(self):
        look(self.name)


class Thread(QtCore.QThread):
    name = "thread"

    def run(self):
        look(self.name)


class Plain(QtCore.QThread):
    "It runs a loop of its own, as without a class."


class Looping(QtCore.QThread):
    "It works, and then runs a loop."

    def run(self):
        look("before the loop")
        timer = QtCore.QTimer()
        timer.timeout.connect(lambda: (look("in the loop"), self.quit()))
        timer.start(1)
        self.exec()


class Receiver(QtCore.QObject):
    name, thread_of = "method", None

    def method(self):
        look(self.name)
        self.thread_of = threading.get_ident()

    def never(self):
        look("never")


def outside(function, *args):
    return contextvars.Context().run(function, *args)


def spin():
    "Run the loop until all that is posted has been called, in a span."
    loop = QtCore.QEventLoop()
    outside(QtCore.QTimer.singleShot, 60, loop.quit)
    with tracer.start_as_current_span("main") as span:
        loop.exec()
        assert trace.get_current_span() is span


receiver, elsewhere, gone = Receiver(), Receiver(), Receiver()
other = Plain()
elsewhere.name = "method elsewhere"
elsewhere.moveToThread(other)
thread, looping, direct = Thread(), Looping(), []
runnable = Runnable("kept runnable")
runnable.setAutoDelete(False)

outside(pool.start, lambda: look("warm"))
pool.waitForDone()


def told(_):
    direct.append(trace.get_current_span().name)


def hand_off():
    with tracer.start_as_current_span("origin") as span:
        other.start()
        pool.start(Runnable("runnable"))
        pool.start(lambda: look("callable"), 1)
        pool.start(runnable)
        thread.start()
        thread.start()  # nothing, as it runs
        looping.start()
        QtCore.QTimer.singleShot(1, lambda: look("single shot"))
        QtCore.QTimer.singleShot(1, receiver.method)
        QtCore.QTimer.singleShot(1, elsewhere.method)
        QtCore.QTimer.singleShot(1, gone.never)
        for one in (thread, app):  # a signal in the same thread is a call
            one.objectNameChanged.connect(told)
            one.setObjectName("changed")
        return span.get_span_context().span_id, weakref.ref(span)


token = context.attach(baggage.set_baggage("tenant", "acme"))
origin, reference = hand_off()
context.detach(token)
del gone
pool.waitForDone()
thread.wait()
looping.wait()
spin()

outside(pool.start, lambda: look("callable afterwards"))
pool.waitForDone()
runnable.name = "runnable afterwards"
outside(pool.start, runnable)
pool.waitForDone()
thread.name = "thread afterwards"
outside(thread.start)
thread.wait()
outside(QtCore.QTimer.singleShot, 1, lambda: look("single shot afterwards"))
spin()

started, release = threading.Event(), threading.Event()
pool.start(lambda: (started.set(), release.wait(20)))  # it has no room for more
started.wait(20)
with tracer.start_as_current_span("refused"):
    refused = pool.tryStart(runnable)
release.set()
pool.waitForDone()
for wrong in ((), (1,), (1, None)):
    for function in (pool.start, thread.start, QtCore.QTimer.singleShot):
        try:
            function(*wrong)
        except TypeError:
            failed.append(1)
        except Exception as error:
            failed.append(repr(error))
other.quit()
other.wait()
gc.collect()
print(json.dumps({
    "origin": origin, "seen": seen, "direct": direct, "refused": refused,
    "kept": reference() is not None,
    "left": [name for one in (runnable, thread, other) for name in vars(one) if name == "run"],
    "own thread": elsewhere.thread_of not in (None, threading.get_ident()), "failed": len(failed),
}))
"""


def run(binding, first, settings="", end=""):
    """Run the program; return what it printed."""
    beginning = f"import sys\nBINDING = {binding!r}\n" + first.format(module=f"{binding}.QtCore")
    program = beginning.replace("instrument()", f"instrument({settings})") + end + PROGRAM
    return json.loads(run_program(program).splitlines()[-1])  # PySide prints of wrong arguments


@pytest.fixture(scope="module", params=BINDINGS)
def binding(request):
    """Return the name of a binding."""
    return request.param


@pytest.fixture(scope="module", params=[INSTRUMENT_FIRST, IMPORT_FIRST], ids=["on first", "after"])
def found(request, binding):
    """Return what the program has found, which is imported before or after."""
    return run(binding, request.param)


def methods(binding):
    """Return the single shots of methods of Qt's objects that carry: PyQt cannot."""
    return ["method", "method elsewhere"] if binding == "PySide6" else []


CARRIED = ("runnable", "callable", "kept runnable", "thread", "before the loop", "single shot")


def test_work_is_a_child_of_who_handed_it_off(binding, found):
    """In a pool's thread, in a thread of Qt's, and in the loop, with the baggage."""
    expected = [found["origin"], [], "acme"]
    for name in (*CARRIED, *methods(binding)):
        assert found["seen"][name] == expected, name


def test_nothing_is_left_to_the_next_work(binding, found):
    """Nor does it get anything from whoever runs the loop."""
    names = [name for name in found["seen"] if name.endswith("afterwards") or name == "warm"]
    names.append("in the loop")
    assert len(names) == 6
    if binding == "PyQt6":
        names += ["method", "method elsewhere"]
    assert [found["seen"][name] for name in names] == [[None, [], None]] * len(names)


def test_qts_rules_hold(found):
    """A method is called in its object's thread, and not at all when that is gone."""
    assert found["own thread"]
    assert "never" not in found["seen"]
    assert found["direct"] == ["origin"] * 2
    assert found["refused"] is False
    assert found["failed"] == 8


def test_nothing_is_kept(found):
    """Neither a span, nor anything in the objects."""
    assert not found["kept"]
    assert found["left"] == []


def test_under_link_it_is_a_trace_of_its_own(binding):
    """It has a link to its origin, and the baggage."""
    found = run(binding, INSTRUMENT_FIRST, "policy='link'")
    for names, primitive in (
        (("runnable", "callable"), "futures"),
        (("thread",), "threading"),
        (("single shot", *methods(binding)), "sched"),
    ):
        for name in names:
            assert found["seen"][name] == [None, [[found["origin"], primitive]], "acme"]


@pytest.mark.parametrize(
    ("settings", "end"),
    [("adapters='-qt'", ""), ("policy='off'", ""), ("", "I().uninstrument()\n")],
    ids=["adapter", "policy", "after uninstrument()"],
)
def test_switched_off_it_carries_nothing(settings, end, binding):
    """By its name, by the policies, and with all of the library."""
    found = run(binding, INSTRUMENT_FIRST, settings, end)
    for name in ("runnable", "callable", "thread"):
        assert found["seen"][name] == [None, [], None]


UNDO = """
QtCore = sys.modules[BINDING + ".QtCore"]
from importlib import import_module
QtWidgets, QtGui = import_module(BINDING + ".QtWidgets"), import_module(BINDING + ".QtGui")
names = [
    (QtCore.QThread, "start"), (QtCore.QThreadPool, "start"), (QtCore.QThreadPool, "tryStart"),
    (QtCore.QTimer, "singleShot"), (QtCore.QCoreApplication, "exec"), (QtCore.QEventLoop, "exec"),
    (QtGui.QGuiApplication, "exec"), (QtWidgets.QApplication, "exec"), (QtWidgets.QDialog, "exec"),
]
before = [vars(owner)[name] for owner, name in names]
for _ in range(2):
    I().instrument()
    assert not [n for (o, n), raw in zip(names, before) if vars(o)[n] is raw]
    I().uninstrument()
    assert [vars(o)[n] for o, n in names] == before
    assert all(vars(o)[n] is raw for (o, n), raw in zip(names, before))
I().instrument()

from opentelemetry import context
app = QtWidgets.QApplication(["tests", "-platform", "offscreen"])
dialog, seen = QtWidgets.QDialog(), []
token = context.attach(context.set_value("key", "value"))
timer = QtCore.QTimer()  # its rounds are in no context
timer.timeout.connect(lambda: seen.append(context.get_value("key")) or dialog.accept())
timer.start(1)
dialog.exec()
QtCore.QTimer.singleShot(1, lambda: seen.append(context.get_value("key")) or app.quit())
timer.stop()
app.exec()
print(*seen, context.get_value("key"))
"""


def test_undo_is_exact_and_windows_run_their_loops(binding):
    """Every attribute is what it was, by identity; whoever runs a loop keeps its context."""
    program = f"import sys\nBINDING = {binding!r}\nimport {binding}.QtCore\n"
    program += "from otel_concurrency import ConcurrencyInstrumentor as I\n" + UNDO
    assert run_program(program) == "None value value\n"


ASYNCIO = """
import asyncio
from PySide6 import QtWidgets
import qasync
from opentelemetry import context
app = QtWidgets.QApplication(["tests", "-platform", "offscreen"])
loop = qasync.QEventLoop(app)

async def see():
    await asyncio.sleep(0.001)
    return context.get_value("key")

async def main():
    context.attach(context.set_value("key", "value"))
    later = loop.create_future()
    loop.call_later(0.001, lambda: later.set_result(context.get_value("key")))
    called = loop.run_in_executor(None, context.get_value, "key")
    print(await asyncio.create_task(see()), await called, await later)

with loop:
    loop.run_until_complete(main())
print(dict(context.get_current()))
"""


def test_loops_of_qasync_carry():
    """Its tasks and timers as asyncio's do, and what it runs in an executor."""
    assert run_program(INSTRUMENT_FIRST.format(module="PySide6") + ASYNCIO) == (
        "value value value\n{}\n"
    )
