"""Qt, by each of its bindings in a process of its own: no two can be in one."""

from __future__ import annotations

import json

import pytest
from suite import IMPORT_FIRST, INSTRUMENT_FIRST, run_program

BINDINGS = ("PySide6", "PyQt6", "PyQt5")

PROGRAM = """
import contextvars
import gc
import json
import threading
import weakref

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import capture

QtCore = sys.modules[BINDING + ".QtCore"]
tracer = TracerProvider().get_tracer("tests")
app = QtCore.QCoreApplication([])
pool = QtCore.QThreadPool()
pool.setMaxThreadCount(1)
seen, ids, failed = {}, {}, []


def look(name):
    with tracer.start_as_current_span(name) as span:
        links = [[link.context.span_id, link.attributes["otel_concurrency.link.primitive"]]
                 for link in span.links]
        ids[name] = span.get_span_context().span_id
        seen[name] = [span.parent and span.parent.span_id, links, baggage.get_baggage("tenant")]
    context.attach(context.set_value("forgotten", 1))


if BINDING.startswith("PyQt"):
    signal, a_slot = QtCore.pyqtSignal, QtCore.pyqtSlot
else:
    signal, a_slot = QtCore.Signal, QtCore.Slot


class Runnable(QtCore.QRunnable):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def run(self):
        look(self.name)


class Thread(QtCore.QThread):
    name, may_end = "thread", threading.Event()

    def run(self):
        look(self.name)
        self.may_end.wait(20)


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

    def take(self, handoff):
        look("queued")
        with handoff:
            look("by hand")

    @a_slot("QVariant")
    def later(self, handoff):
        look("invoked")
        handoff.run(look, "invoked by hand")


def outside(function, *args):
    return contextvars.Context().run(function, *args)


def spin():
    "Run the loop until all that is posted has been called, in a span."
    loop = QtCore.QEventLoop()
    outside(QtCore.QTimer.singleShot, 60, loop.quit)
    with tracer.start_as_current_span("main") as span:
        loop.exec()
        assert trace.get_current_span() is span


class Emitter(QtCore.QObject):
    clicked, handed = signal(bool), signal(object)


class Timer(QtCore.QTimer):
    def timerEvent(self, event):
        look("overridden")
        super().timerEvent(event)


def timer(name, rounds, *, again=False, kind=QtCore.QTimer):
    "Return a timer that looks, and after some rounds stops. It may be one that starts itself."
    made, left = kind(), list(range(rounds, 0, -1))

    def ring():
        look(f"{name} {left.pop()}")
        if again and left:
            made.start(1)
        elif not left:
            made.stop()

    made.setSingleShot(again)
    made.timeout.connect(ring)
    return made


receiver, elsewhere, gone = Receiver(), Receiver(), Receiver()
other, emitter = Plain(), Emitter()
elsewhere.name = "method elsewhere"
elsewhere.moveToThread(other)
emitter.handed.connect(elsewhere.take)
thread, looping, direct = Thread(), Looping(), []
timers = [timer("round", 3), timer("again", 3, again=True), timer("overriding", 1, kind=Timer)]
stopped, restarted = timer("stopped", 1), timer("restarted", 1)
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
        thread.may_end.set()
        looping.start()
        QtCore.QTimer.singleShot(1, lambda: look("single shot"))
        QtCore.QTimer.singleShot(1, receiver.method)
        QtCore.QTimer.singleShot(1, elsewhere.method)
        QtCore.QTimer.singleShot(1, gone.never)
        emitter.handed.emit(capture())
        queued = QtCore.Qt.ConnectionType.QueuedConnection
        argument = QtCore.Q_ARG("QVariant", capture())
        QtCore.QMetaObject.invokeMethod(elsewhere, "later", queued, argument)
        for one in (*timers, stopped, restarted):
            one.start(1)
        stopped.stop()
        outside(lambda: restarted.start(1))
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

slot, timed = Thread(), QtCore.QTimer()
slot.name, connected = "slot", []
timed.setInterval(20000)
for function in (slot.start, timed.start, timed.stop):
    emitter.clicked.connect(function)
    emitter.clicked.emit(True)
    emitter.clicked.disconnect(function)
    connected.append(slot.wait(20000) and timed.isActive())

started, release = threading.Event(), threading.Event()
pool.start(lambda: (started.set(), release.wait(20)))  # it has no room for more
started.wait(20)
with tracer.start_as_current_span("refused"):
    refused = pool.tryStart(runnable)
release.set()
pool.waitForDone()
for wrong in ((), ("1",), ("1", None)):
    for function in (pool.start, lambda *wrong: thread.start(*wrong), QtCore.QTimer.singleShot):
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
    "left": [name for one in (runnable, thread, other, *timers, stopped, restarted)
             for name in vars(one) if name in ("run", "timerEvent")],
    "ids": ids, "connected": connected,
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


CARRIED = (
    *("runnable", "callable", "kept runnable", "thread", "before the loop", "single shot"),
    *("by hand", "invoked by hand"),
)


@pytest.mark.decisive
def test_work_is_a_child_of_who_handed_it_off(binding, found):
    """In a pool's thread, in a thread of Qt's, and in the loop, with the baggage."""
    expected = [found["origin"], [], "acme"]
    for name in (*CARRIED, *methods(binding)):
        assert found["seen"][name] == expected, name


@pytest.mark.decisive
def test_nothing_is_left_to_the_next_work(binding, found):
    """Nor does it get anything from whoever runs the loop."""
    names = [name for name in found["seen"] if name.endswith("afterwards") or name == "warm"]
    names += ["restarted 1", "queued", "invoked"]
    assert len(names) == 8
    if binding.startswith("PyQt"):
        names += ["method", "method elsewhere"]
    assert [found["seen"][name] for name in names] == [[None, [], None]] * len(names)


def test_each_round_of_a_timer_is_linked_to_its_start(found):
    """It is a trace of its own with the baggage; so is a loop's, in a thread of its own."""
    expected = [None, [[found["origin"], "sched"]], "acme"]
    for name in ("round 1", "round 2", "round 3", "overridden", "overriding 1", "in the loop"):
        assert found["seen"][name] == expected, name


def test_a_timer_that_starts_itself_is_periodic(found):
    """It is a child the first time; then each round is linked to the one before."""
    assert found["seen"]["again 1"] == [found["origin"], [], "acme"]
    for number in (2, 3):
        link = [found["ids"][f"again {number - 1}"], "sched"]
        assert found["seen"][f"again {number}"] == [None, [link], "acme"]


def test_qts_rules_hold(found):
    """A method is called in its object's thread, and not at all when that is gone.

    A signal with arguments may be connected to a method that takes none of them.
    """
    assert found["own thread"]
    assert found["connected"] == [False, True, False]
    assert found["seen"]["slot"] == [None, [], None]
    assert not {"never", "stopped 1"} & found["seen"].keys()
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
    for name in ("runnable", "callable", "thread", "round 1", "again 2"):
        parent, links, tenant = found["seen"][name]
        assert parent != found["origin"], name
        assert (links, tenant) == ([], None), name


UNDO = """
QtCore = sys.modules[BINDING + ".QtCore"]
from importlib import import_module
QtWidgets, QtGui = import_module(BINDING + ".QtWidgets"), import_module(BINDING + ".QtGui")
names = [
    (QtCore.QThread, "start"), (QtCore.QThreadPool, "start"), (QtCore.QThreadPool, "tryStart"),
    *((QtCore.QTimer, name) for name in ("singleShot", "start", "stop")),
    *((owner, "exec") for owner in (
        QtCore.QCoreApplication, QtCore.QEventLoop, QtCore.QThread,
        QtGui.QGuiApplication, QtWidgets.QApplication, QtWidgets.QDialog,
    )),
]
names += [(owner, "exec_") for owner, name in names if name == "exec" and "exec_" in vars(owner)]
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
started, timer = QtCore.QTimer(), QtCore.QTimer()
started.timeout.connect(lambda: seen.append(context.get_value("key")))
started.timeout.connect(timer.start)  # what a signal starts is in no context
timer.timeout.connect(lambda: seen.append(context.get_value("key")) or dialog.accept())
for one in (started, timer):
    one.setSingleShot(True)
started.start(1)
dialog.exec()
QtCore.QTimer.singleShot(1, lambda: seen.append(context.get_value("key")) or app.quit())
app.exec()
print(*seen, context.get_value("key"))
"""


def test_undo_is_exact_and_windows_run_their_loops(binding):
    """Every attribute is what it was, by identity; whoever runs a loop keeps its context."""
    program = f"import sys\nBINDING = {binding!r}\nimport {binding}.QtCore\n"
    program += "from otel_concurrency import ConcurrencyInstrumentor as I\n" + UNDO
    assert run_program(program) == "value None value value\n"


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


@pytest.mark.parametrize("first", [INSTRUMENT_FIRST, IMPORT_FIRST], ids=["on first", "after"])
def test_loops_of_applications_are_in_no_context(first, binding):
    """Whichever is first, the import or the library, of which classes only some were used."""
    assert run_program(first.format(module=f"{binding}.QtWidgets") + LOOPS.format(binding)) == (
        "None\n" * 2
    )


LOOPS = """
from {0} import QtCore, QtWidgets
from opentelemetry import context
app = QtWidgets.QApplication(["tests", "-platform", "offscreen"])
context.attach(context.set_value("key", "value"))
dialog = QtWidgets.QDialog()

class Watch(QtCore.QObject):
    def __init__(self, leave):
        super().__init__()
        self.leave = leave
        self.startTimer(1)

    def timerEvent(self, event):
        print(context.get_value("key"))
        self.killTimer(event.timerId())
        self.leave()

watch = Watch(app.quit)
app.exec()
watch = Watch(dialog.accept)
dialog.exec()
"""


def test_loops_of_qasync_carry():
    """Its tasks and timers as asyncio's do, and what it runs in an executor."""
    assert run_program(INSTRUMENT_FIRST.format(module="PySide6") + ASYNCIO) == (
        "value value value\n{}\n"
    )
