"""What the program can see of the library: nothing."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures.thread
import copy
import functools
import inspect
import pickle
import sched
import threading
import time
import types
from asyncio.base_events import BaseEventLoop
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from forms import WAIT, OwnWorker, ThreadPerCall, without_context
from opentelemetry.context import attach, detach, get_value, set_value

from interpreters import death_of
from otel_concurrency import ConcurrencyInstrumentor

CALLABLES = {
    "Thread.start": lambda: threading.Thread.start,
    "Thread.run": lambda: threading.Thread.run,
    "Thread.join": lambda: threading.Thread.join,
    "Thread": lambda: threading.Thread,
    "Thread._bootstrap_inner": lambda: threading.Thread._bootstrap_inner,
    "Timer": lambda: threading.Timer,
    "start_new_thread": lambda: _thread.start_new_thread,
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor,
    "ThreadPoolExecutor.submit": lambda: ThreadPoolExecutor.submit,
    "ThreadPoolExecutor.map": lambda: ThreadPoolExecutor.map,
    "Executor.submit": lambda: Executor.submit,
    "_WorkItem.run": lambda: concurrent.futures.thread._WorkItem.run,
    "_worker": lambda: concurrent.futures.thread._worker,
    "Future": lambda: Future,
    "Future.add_done_callback": lambda: Future.add_done_callback,
    "Future._invoke_callbacks": lambda: Future._invoke_callbacks,
    "run_in_executor": lambda: BaseEventLoop.run_in_executor,
    "scheduler.enter": lambda: sched.scheduler.enter,
    "scheduler.enterabs": lambda: sched.scheduler.enterabs,
    "scheduler.cancel": lambda: sched.scheduler.cancel,
    "scheduler.run": lambda: sched.scheduler.run,
    "Event": lambda: sched.Event,
    "Event.__new__": lambda: sched.Event.__new__,
    "Event._make": lambda: sched.Event._make,
    "Event._replace": lambda: sched.Event._replace,
}
every_callable = pytest.mark.parametrize("look_up", CALLABLES.values(), ids=CALLABLES)


def described(thing):
    """Return what a program can read off a callable."""
    try:
        signature = str(inspect.signature(thing))
    except ValueError as error:
        signature = repr(type(error))
    return {
        "signature": signature,
        "doc": thing.__doc__,
        "name": thing.__name__,
        "qualname": thing.__qualname__,
        "module": thing.__module__,
        "annotations": getattr(thing, "__annotations__", None),
        "is a class": inspect.isclass(thing),
        "is a function": inspect.isroutine(thing),
        "is a coroutine function": inspect.iscoroutinefunction(thing),
    }


@pytest.fixture
def in_a(instrumented):
    """Run the test instrumented, in a context that there is something to carry of."""
    token = attach(set_value("value", "a"))
    yield
    detach(token)


def value():
    """Return what tells the contexts of a test apart."""
    return get_value("value")


@every_callable
def test_a_patched_callable_looks_as_it_does_without(look_up):
    """Signature, names, documentation and kind are the original's."""
    plain = described(look_up())
    ConcurrencyInstrumentor().instrument()
    try:
        assert described(look_up()) == plain
    finally:
        ConcurrencyInstrumentor().uninstrument()


PICKLABLE = [name for name in CALLABLES if not name.startswith("Event._")]  # nor are these without


@pytest.mark.parametrize("name", PICKLABLE)
def test_a_public_callable_pickles_and_copies(name, in_a):
    """A reference that is pickled or copied is the same callable."""
    thing = CALLABLES[name]()

    assert pickle.loads(pickle.dumps(thing)) == thing
    assert copy.copy(thing) == thing
    assert copy.deepcopy(thing) == thing


def test_a_partial_of_a_patched_callable_pickles(in_a):
    """As programs do that hand such things to other processes."""
    partial = functools.partial(_thread.start_new_thread, value)

    assert pickle.loads(pickle.dumps(partial)).func == _thread.start_new_thread


WRONG_CALLS = {
    "submit": lambda: ThreadPoolExecutor.submit(),
    "submit without fn": lambda: ThreadPoolExecutor(1).submit(),
    "submit by keyword": lambda: ThreadPoolExecutor(1).submit(fn=value),
    "add_done_callback without fn": lambda: Future().add_done_callback(),
    "add_done_callback with two": lambda: Future().add_done_callback(value, value),
    "start with an argument": lambda: threading.Thread().start(1),
    "start before __init__": lambda: threading.Thread.__new__(threading.Thread).start(),
    "start_new_thread without arguments": lambda: _thread.start_new_thread(),
    "start_new_thread without args": lambda: _thread.start_new_thread(value),
    "start_new_thread of no callable": lambda: _thread.start_new_thread(1, ()),
    "start_new_thread with a list": lambda: _thread.start_new_thread(value, []),
    "start_new_thread by keyword": lambda: _thread.start_new_thread(function=value, args=()),
    "start_new_thread, kwargs no dict": lambda: _thread.start_new_thread(value, (), ()),
    "enter without action": lambda: sched.scheduler().enter(0, 1),
    "enter with too much": lambda: sched.scheduler().enter(0, 1, value, (), {}, 1),
    "enter with an argument that is no tuple": lambda: entered_with(5),
    "enter with keywords that are no dict": lambda: entered_with((), 5),
    "cancel nothing": lambda: sched.scheduler().cancel(),
    "cancel what is not there": lambda: sched.scheduler().cancel(sched.Event(0, 1, 2, 3, 4, 5)),
    "Event without fields": lambda: sched.Event(),
    "Event with an unknown field": lambda: sched.Event(1, 2, 3, 4, 5, 6, sevenths=7),
    "_replace an unknown field": lambda: sched.Event(1, 2, 3, 4, 5, 6)._replace(seven=7),
    "run_in_executor of nothing": lambda: in_loop(lambda loop: loop.run_in_executor(None)),
    "run_in_executor of no callable": lambda: in_loop(lambda loop: loop.run_in_executor(None, 1)),
    "run_in_executor of a coroutine": lambda: in_loop(
        lambda loop: loop.run_in_executor(None, coroutine)
    ),
    "run_in_executor with no executor": lambda: in_loop(
        lambda loop: loop.run_in_executor(object(), value)
    ),
}


def entered_with(*arguments):
    """Run an action that was entered with arguments."""
    scheduler = sched.scheduler()
    scheduler.enter(0, 1, value, *arguments)
    scheduler.run()


async def coroutine():
    """Is not what an executor can run."""


def in_loop(use):
    """Return what ``use(loop)`` makes, of a debugging loop that is taken down."""
    loop = asyncio.new_event_loop()
    loop.set_debug(True)

    async def main():
        return await use(loop)

    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.alone
@pytest.mark.parametrize("call", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call_raises_what_it_raises_without(call):
    """The exception has the interpreter's own type and words."""
    plain = raised_by(call)
    ConcurrencyInstrumentor().instrument()
    token = attach(set_value("value", "a"))
    try:
        instrumented = raised_by(call)
    finally:
        detach(token)
        ConcurrencyInstrumentor().uninstrument()

    assert instrumented == plain


def raised_by(call):
    """Return type and words of what ``call`` raises."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - it is compared
        call()
    return raised.type, str(raised.value)


@pytest.mark.parametrize("home_made", [ThreadPerCall, OwnWorker])
def test_a_home_made_executor_is_given_the_callable_as_it_knows_it(home_made, in_a):
    """It can read names, attributes and signature, compare, hash and pickle what it is given."""
    given = []

    class Curious(home_made):
        def submit(self, fn, /, *args, **kwargs):
            given.append(fn)
            return super().submit(fn, *args, **kwargs)

    async def main(executor):
        return await asyncio.get_running_loop().run_in_executor(executor, value)

    with Curious() as executor:
        assert asyncio.run(main(executor)) == "a"

    assert executor.names == ["value"]
    (fn,) = given
    assert (fn.__name__, fn.__qualname__) == ("value", "value")
    assert (fn.__module__, fn.__doc__) == (value.__module__, value.__doc__)
    assert fn.__code__ is value.__code__
    assert inspect.signature(fn) == inspect.signature(value)
    assert inspect.unwrap(fn) is value
    assert fn == value
    assert {value: 1}[fn] == 1
    assert repr(fn) == repr(value)
    assert callable(fn)
    pickle.loads(pickle.dumps(fn))


class LooksBack:
    """A callable that raises at every look at it, as a proxy may that is not bound yet."""

    called = 0

    def __getattribute__(self, name):
        raise LookupError(name)

    def __call__(self, *args):
        LooksBack.called += 1


HAND_OFFS_OF_ANYTHING = {
    "add_done_callback": lambda work: completed(work),
    "add_done_callback of a future that is done": lambda work: completed(work, first=True),
    "start_new_thread": lambda work: _thread.start_new_thread(work, ()),
    "ThreadPool.apply_async": lambda work: in_pool(work),
    "enter": lambda work: entered(work),
    "submit": lambda work: submitted(work),
}


def in_pool(work):
    """Have a pool's thread call it."""
    with ThreadPool(1) as pool:
        pool.apply_async(work).get(WAIT)


def submitted(work):
    """Have an executor's worker call it."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(work).result(WAIT)


def completed(work, *, first=False):
    """Have a future call what was added to it, or is added to it when it is done."""
    future = Future()
    if first:
        future.set_result(None)
    future.add_done_callback(work)
    if not first:
        future.set_result(None)


def entered(work):
    """Run an action."""
    scheduler = sched.scheduler()
    scheduler.enter(0, 1, work)
    scheduler.run()


@pytest.mark.parametrize("hand_off", HAND_OFFS_OF_ANYTHING.values(), ids=HAND_OFFS_OF_ANYTHING)
def test_what_raises_at_every_look_at_it_is_called(hand_off, in_a):
    """The library's looks cost it a context at most."""
    before = LooksBack.called
    hand_off(LooksBack())
    deadline = time.monotonic() + WAIT
    while LooksBack.called == before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert LooksBack.called == before + 1


def test_a_method_that_another_class_borrows_works_there(in_a):
    """It needs no more of that class than it does without the library."""

    class Borrows:
        add_done_callback = Future.add_done_callback

        def __init__(self):
            self._condition, self._state = threading.Condition(), "PENDING"
            self._done_callbacks = []

    borrows = Borrows()
    borrows.add_done_callback(value)
    assert [callback() for callback in borrows._done_callbacks] == ["a"]


def test_subclasses_that_override_are_called_as_they_are_without(in_a):
    """A subclass's ``submit`` is given the program's own callable and arguments."""
    given = []

    class Mine(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            given.append((fn, args, kwargs))
            return super().submit(fn, *args, **kwargs)

    with Mine(1) as pool:
        pool.submit(dict, (), key=1).result(WAIT)
        list(pool.map(abs, [-1]))

    assert given == [(dict, ((),), {"key": 1}), (abs, (-1,), {})]
    assert [type(fn) for fn, _, _ in given] == [type, types.BuiltinFunctionType]


def test_a_pool_that_takes_fn_by_keyword_of_the_task_gets_it(in_a):
    """Keywords of the task may have any name, also those of ``submit`` itself."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(dict, fn=1, self=2, args=3).result(WAIT) == {
            "fn": 1,
            "self": 2,
            "args": 3,
        }


def test_a_thread_shows_the_program_what_the_program_gave_it(in_a):
    """Target, function and arguments are the program's own objects, before and while it runs."""
    args, kwargs = (1,), {"key": 2}
    seen = []

    def work(*args, **kwargs):
        thread = threading.current_thread()
        seen.append((getattr(thread, "_target", None), sorted(vars(thread))))

    thread = threading.Thread(target=work, args=args, kwargs=kwargs)
    before = sorted(vars(thread))
    assert thread._target is work
    thread.start()
    thread.join(WAIT)

    ((target, names),) = seen
    assert target is work
    assert [name for name in names if "otel" in name] == []
    assert set(vars(thread)) <= set(before)


def test_a_timer_shows_the_program_what_the_program_gave_it(in_a):
    """``function``, ``args`` and ``kwargs`` are the program's own objects throughout."""
    timer = threading.Timer(3600, value, [1], {"key": 2})
    shown = (timer.function, timer.args, timer.kwargs)

    timer.start()
    assert (timer.function, timer.args, timer.kwargs) == shown
    assert timer.function is value
    assert [name for name in vars(timer) if "otel" in name] == []
    timer.cancel()
    timer.join(WAIT)

    assert timer.function is value


# Events of a scheduler


@pytest.fixture
def event(in_a):
    """Return an event that was entered in a context."""
    return sched.scheduler().enterabs(1, 2, value, (3,), {"key": 4})


def test_an_event_is_an_event(event):
    """Its type is the module's ``Event``."""
    assert type(event) is sched.Event
    assert isinstance(event, sched.Event)
    assert isinstance(event, tuple)
    assert issubclass(sched.Event, tuple)


def test_an_events_action_is_the_programs_own_in_every_way_of_looking_at_it(event):
    """Attribute, index, slice, iteration, unpacking, dictionary and copies show the callable."""
    *_, action, _, _ = event

    assert action is value
    assert event.action is value
    assert event[3] is value
    assert event[3:4] == (value,)
    assert event[3:4][0] is value
    assert list(event)[3] is value
    assert tuple(event)[3] is value
    assert event._asdict()["action"] is value
    assert event._replace(priority=5).action is value
    assert type(event._replace(priority=5)) is sched.Event
    assert sched.Event._make(event).action is value


def test_an_event_equals_and_reads_as_one_made_without(event):
    """Equality, hash, order and ``repr`` are those of the named tuple."""
    ConcurrencyInstrumentor().uninstrument()
    plain = sched.Event(*event)

    assert event == plain
    assert plain == event
    assert not event < plain
    assert event <= plain
    assert repr(event) == repr(plain)
    assert event._asdict() == plain._asdict()
    assert event._fields == plain._fields
    assert event == (1, 2, event.sequence, value, (3,), {"key": 4})


def test_events_made_before_and_while_and_after(event):
    """All of them are events to ``isinstance``, whenever it is asked."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.uninstrument()
    plain = sched.Event(*event)
    assert isinstance(event, sched.Event)
    assert isinstance(plain, sched.Event)
    instrumentor.instrument()

    assert isinstance(plain, sched.Event)
    assert isinstance(event, sched.Event)
    assert not isinstance((1, 2), sched.Event)


def test_an_event_pickles_and_copies(in_a):
    """Copies and pickles are events with the program's own action; the context stays behind."""
    event = sched.scheduler().enterabs(1, 2, value)

    for again in (pickle.loads(pickle.dumps(event)), copy.copy(event)):
        assert type(again) is sched.Event
        assert again.action is value
        assert again[:4] == event[:4]


def test_a_pickled_event_can_be_read_without_the_library(in_a):
    """What was pickled while the library was on is a plain event to who unpickles it."""
    pickled = pickle.dumps(sched.scheduler().enterabs(1, 2, value, kwargs={}))
    ConcurrencyInstrumentor().uninstrument()

    again = pickle.loads(pickled)

    assert type(again) is sched.Event
    assert again.action is value


def test_the_queue_of_a_scheduler_shows_the_events_in_order(in_a):
    """``queue`` has the very events that were entered, in the order in which they will run."""
    scheduler = sched.scheduler()
    events = [scheduler.enterabs(time, 1, value) for time in (3, 1, 2)]

    assert [event.time for event in scheduler.queue] == [1, 2, 3]
    assert all(any(shown is event for event in events) for shown in scheduler.queue)


def test_an_event_is_cancelled_by_its_equal(in_a):
    """As the standard library compares: by value."""
    scheduler = sched.scheduler()
    event = scheduler.enterabs(1, 2, value)

    scheduler.cancel(sched.Event(*event))

    assert scheduler.empty()


def test_an_event_that_was_entered_before_runs_after(event):
    """Events of before the library was switched on run as they were."""
    ran = []
    ConcurrencyInstrumentor().uninstrument()
    scheduler = sched.scheduler()
    scheduler.enterabs(1, 2, lambda: ran.append(value()))
    ConcurrencyInstrumentor().instrument()

    without_context(scheduler.run)

    assert ran == [None]


def test_a_scheduler_passes_arguments_and_times_on(in_a):
    """Own clocks, delays, priorities, arguments and keywords work as they do without."""
    now, slept, ran = [0], [], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    scheduler = sched.scheduler(lambda: now[0], sleep)
    scheduler.enter(
        5, 2, lambda *args, **kwargs: ran.append((value(), args, kwargs)), (1,), {"k": 2}
    )
    scheduler.enter(5, 1, ran.append, ("first",))
    without_context(scheduler.run)

    assert ran == ["first", ("a", (1,), {"k": 2})]
    assert slept[0] == 5


def test_cancelling_an_equal_event_lets_go_of_the_context(in_a):
    """An event that was cancelled by its equal holds no context, though the program holds it."""
    scheduler = sched.scheduler()

    class Held:
        pass

    held = Held()
    died = death_of(held)
    token = attach(set_value("held", held))
    event = scheduler.enterabs(1, 2, value)
    detach(token)
    del token, held
    scheduler.cancel(sched.Event(*event))

    assert died.wait(5)
    assert event.action is value
