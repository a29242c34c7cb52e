"""The hot path: one-shot calls that look like the callable, and faults that stay ours."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from contextvars import Token

import pytest
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from interpreters import weak_reference
from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import BodyCall, Call, DirectCall, Seam


def seen():
    """Return what the work can see of the context that was handed off."""
    return context_api.get_value("key")


def add(left: int, right: int = 2) -> int:
    """Add two numbers."""
    return left + right


class Value:
    """Something to be found, or not to be found, by a weak reference."""


class LooksBack:
    """A callable that can be called, and nothing else."""

    @property
    def __class__(self):
        """Raise, as a proxy may that is not bound yet."""
        raise LookupError("of the program")

    def __call__(self):
        """Do nothing."""


@pytest.fixture(
    autouse=True, params=dict.fromkeys((Call, DirectCall)), ids=lambda kind: kind.__name__
)
def _kind(request, monkeypatch):
    """Run each test over the class in Python, and over the compiled one where there is one."""
    monkeypatch.setitem(globals(), "Call", request.param)


@pytest.fixture
def context():
    """Return a context of which the test holds the only reference."""
    return context_api.set_value("key", "handed off")


@pytest.fixture
def current(context):
    """Attach a context for the length of a test."""
    token = context_api.attach(context)
    yield context
    context_api.detach(token)


@pytest.fixture
def seam(monkeypatch):
    """Return a new seam; the library itself does not find it under its name."""
    monkeypatch.setattr(handoff, "seams", {})
    return Seam("sched")


@pytest.fixture
def broken(monkeypatch):
    """Return a function that makes one of the context API's functions raise when we call it."""
    before = context_api.get_current()

    def break_(name):
        program = f"def fail(*_args): raise RuntimeError('{name} is broken')"
        scope = {}
        exec(compile(program, f"<{name}>", "exec"), scope)  # each its own origin of a fault
        monkeypatch.setattr(handoff, name, scope["fail"])
        compiled.bind(vars(handoff))

    yield break_
    monkeypatch.undo()
    compiled.bind(vars(handoff))
    context_api.attach(before)  # a broken detach has left something behind


# --- capture ---


def test_capture_returns_the_current_context(current):
    """What is captured is the context itself, by reference."""
    assert handoff.capture(add) is current


def test_capture_of_nothing_is_none():
    """Where no context is attached there is nothing to carry."""
    assert handoff.capture(add) is None


def test_short_cuts_do_what_the_api_does(context):
    """The cheap ways to read, attach and detach lead to the same context as the API's functions."""
    assert handoff.get_current is not context_api.get_current
    token = handoff.attach(context)
    assert context_api.get_current() is handoff.get_current() is context
    handoff.detach(token)
    assert context_api.get_current() == handoff.get_current() == Context()


API = (context_api.get_current, context_api.attach, context_api.detach)


def test_other_runtime_context_is_used_by_the_api(monkeypatch):
    """Where a program brings its own runtime context, nothing is assumed about it."""

    class Own(ContextVarsRuntimeContext):
        """A runtime context that might do anything."""

    assert handoff._runtime() != API
    monkeypatch.setattr(context_api, "_RUNTIME_CONTEXT", Own())
    assert handoff._runtime() == API


@pytest.mark.parametrize("name", ["get_current", "attach", "detach"])
def test_patched_runtime_context_is_used_by_the_api(name, monkeypatch):
    """Where somebody has patched the runtime context, they see what we do."""

    def patched(*_args):
        """Do what somebody wants to be done."""

    monkeypatch.setattr(ContextVarsRuntimeContext, name, patched)
    assert handoff._runtime() == API


def test_new_seam_is_inert(seam, current):
    """A seam captures nothing until it is switched on."""
    assert not seam.active
    assert seam.capture(add) is None
    assert handoff.call(seam, add) is None


def test_seam_captures_while_it_is_on(seam, current):
    """A seam captures with what it was given, and nothing after it was switched off."""
    seam.capture = handoff.capture
    assert seam.active
    assert seam.capture(add) is current
    seam.capture = handoff.capture_nothing
    assert not seam.active
    assert seam.capture(add) is None


def test_seam_tells_its_capture_what_is_handed_off(seam):
    """The capture function is given the piece of work, by identity."""
    given = []
    seam.capture = given.append
    handoff.call(seam, add)
    assert given == [add]


def test_seam_reports_a_raising_capture_once(seam, caplog):
    """A fault in capturing is one warning with its traceback, and means: nothing to carry."""
    seam.capture = lambda work: 1 / 0
    assert [handoff.call(seam, add) for _ in range(3)] == [None, None, None]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "division by zero" in record.getMessage()
    assert record.exc_info[0] is ZeroDivisionError


def test_call_of_what_raises_at_a_look_is_none(seam, current, caplog):
    """The original is called with it, as without the library."""
    seam.capture = handoff.capture
    work = LooksBack()
    assert handoff.call(seam, work) is None
    assert handoff.bind(seam, work) is not None
    assert "of the program" in caplog.text


def test_seam_does_not_swallow_an_interrupt(seam):
    """A KeyboardInterrupt that happens to arrive in our code is the program's."""

    def interrupted(work):
        raise KeyboardInterrupt

    seam.capture = interrupted
    with pytest.raises(KeyboardInterrupt):
        handoff.call(seam, add)


def test_call_of_a_seam_carries_what_the_seam_captures(seam, current):
    """What is handed off while there is a context becomes a call that runs in it."""
    seam.capture = handoff.capture
    call = handoff.call(seam, seen, Call)
    assert isinstance(call, Call)
    token = context_api.attach(Context())
    try:
        assert call() == "handed off"
    finally:
        context_api.detach(token)


def test_call_of_a_seam_without_context_is_none(seam):
    """Where there is nothing to carry there is no call, and the original callable is handed on."""
    seam.capture = handoff.capture
    assert handoff.call(seam, add) is None


def test_call_of_a_call_is_none(seam, current):
    """What is handed off already is not handed off once more by whoever passes it on."""
    seam.capture = handoff.capture
    assert handoff.call(seam, Call(current, add)) is None


def test_call_of_a_seam_that_fails_is_none(seam, caplog):
    """A fault in capturing is one warning, and the original callable is handed on."""
    seam.capture = lambda work: 1 / 0
    assert [handoff.call(seam, add) for _ in range(3)] == [None, None, None]
    assert len(caplog.records) == 1


# --- the call ---


def test_call_runs_in_its_context_and_leaves(context):
    """The function sees the context that was handed off; afterwards the caller's is back."""
    assert Call(context, seen)() == "handed off"
    assert seen() is None


def test_call_passes_arguments_and_result(context):
    """Arguments go in and the result comes out unchanged, whatever the arguments are called."""
    assert Call(context, add)(1, right=5) == 6
    assert Call(context, dict)(self=1, context=2) == {"self": 1, "context": 2}


def test_call_is_one_shot(context):
    """The second call of the same hand-off runs in the context of its caller."""
    call = Call(context, seen)
    assert [call(), call()] == ["handed off", None]
    token = context_api.attach(context_api.set_value("key", "the caller's"))
    try:
        assert call() == "the caller's"
    finally:
        context_api.detach(token)


def test_call_that_calls_itself_attaches_once(context):
    """A re-entrant call finds the context attached, not attached again."""
    depth = []

    def recurse():
        depth.append(seen())
        if len(depth) < 3:
            call()

    call = Call(context, recurse)
    call()
    assert depth == ["handed off"] * 3
    assert seen() is None


def test_released_call_runs_without_context(context):
    """After release the call is the bare function."""
    call = Call(context, seen)
    call.release()
    assert call() is None


def test_call_with_no_context_starts_clean(current):
    """Handing off NO_CONTEXT means that the work sees none, not its worker's."""
    assert Call(handoff.NO_CONTEXT, seen)() is None
    assert seen() == "handed off"


@pytest.mark.parametrize(
    "fault", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, BaseException]
)
def test_exception_passes_and_context_is_detached(context, fault):
    """Whatever the function raises reaches the caller as it is, and the context is detached."""
    raised = fault("the user's")

    def work():
        raise raised

    with pytest.raises(fault) as caught:
        Call(context, work)()
    assert caught.value is raised
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert seen() is None


def test_what_the_user_forgot_to_detach_is_detached(context, caplog):
    """A context that the function attaches and leaves behind is gone with ours."""

    def forgetful():
        context_api.attach(context_api.set_value("key", "forgotten"))
        return seen()

    assert Call(context, forgetful)() == "forgotten"
    assert seen() is None
    assert not caplog.records


def test_users_own_detach_inside_is_undisturbed(context, caplog):
    """What the function attaches and detaches itself works as it does without us."""

    def tidy():
        token = context_api.attach(context_api.set_value("key", "inner"))
        inner = seen()
        context_api.detach(token)
        return inner, seen()

    assert Call(context, tidy)() == ("inner", "handed off")
    assert not caplog.records


@pytest.mark.parametrize("end", ["called", "raised", "released"])
def test_spent_call_keeps_no_context(end):
    """A hand-off that is over refers to its context no more; no garbage collector is needed."""
    value = Value()
    gone = weak_reference(value)
    call = Call(Context({"key": value}), add)
    del value
    gc.disable()
    try:
        if end == "called":
            call(1)
        elif end == "released":
            call.release()
        else:
            with pytest.raises(TypeError):
                call()
        assert gone() is None
    finally:
        gc.enable()
    assert call is not None


def test_running_call_holds_no_context(context):
    """While the function runs, its context is the current one and not the call's any more."""
    call = Call(context, lambda: (call._context, context_api.get_current()))
    assert call() == (None, context)


def test_traceback_of_a_raising_call_holds_neither_context_nor_token(context):
    """The frames of ours in a traceback that is kept refer to no context and no token."""

    def work():
        raise LookupError

    try:
        Call(context, work)()
    except LookupError as error:
        traceback = error.__traceback__
    ours = []
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == handoff.__name__:
            ours.append(traceback.tb_frame)
        traceback = traceback.tb_next
    assert bool(ours) == (Call is handoff.Call)  # there is no frame of a compiled one
    for frame in ours:
        for name, value in frame.f_locals.items():
            for held in value if isinstance(value, tuple) else (value,):
                assert not isinstance(held, Context | Token), name


@pytest.mark.parametrize("whose", ["hand-off", "worker"])
def test_kept_exception_keeps_no_context(whose):
    """An exception that is kept with its traceback keeps neither context of its call alive."""
    value = Value()
    gone = weak_reference(value)
    contexts = {"hand-off": Context({"key": 1}), "worker": Context({"key": 2})}
    contexts[whose] = Context({"key": value})
    del value

    def work():
        raise LookupError

    kept = []
    gc.disable()
    try:
        token = context_api.attach(contexts.pop("worker"))
        try:
            Call(contexts.pop("hand-off"), work)()
        except LookupError as error:
            kept.append(error)
        context_api.detach(token)
        del token
        assert gone() is None
    finally:
        gc.enable()


def test_call_runs_in_another_thread(context):
    """A hand-off attaches in the thread that picks it up, and nowhere else."""
    results = []
    call = Call(context, lambda: results.append(seen()))

    def worker():
        call()
        results.append(seen())

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join(30)
    assert results == ["handed off", None]
    assert seen() is None


# --- what a call looks like ---


def test_call_has_the_attributes_of_its_function(context):
    """Attributes are the function's; a missing one is missing in the function's own words."""

    def work():
        """Work."""

    work.own = "attribute"
    call = Call(context, work)
    assert call.__name__ == "work"
    assert call.own == "attribute"
    assert call.__wrapped__ is work
    assert (call.__module__, call.__doc__) == (work.__module__, "Work.")
    with pytest.raises(AttributeError, match="'function' object has no attribute 'missing'"):
        _ = call.missing


@pytest.mark.parametrize("kind", [BodyCall, type("Later", (BodyCall,), {"__doc__": "Later."})])
def test_call_of_a_derived_class_has_the_attributes_that_a_class_has_itself(kind, context):
    """Its module and its documentation are the function's, and not those of the class."""
    call = kind(context, add)
    assert (call.__module__, call.__doc__) == (add.__module__, "Add two numbers.")


def test_call_has_the_signature_of_its_function(context):
    """`inspect.signature` gives the function's parameters."""
    assert inspect.signature(Call(context, add)) == inspect.signature(add)
    assert inspect.unwrap(Call(context, add)) is add
    assert callable(Call(context, add))


@pytest.mark.parametrize("function", [add, functools.partial(add, 1), [].append, len, Value])
def test_call_is_equal_to_its_function(context, function):
    """A call equals its function, and another call of it, and is found by it in sets and dicts."""
    call = Call(context, function)
    assert call == function
    assert function == call
    assert call == Call(Context(), function)
    assert call != print
    assert call != Call(context, print)
    assert [function].index(call) == [call].index(function) == 0
    if function.__hash__:
        assert hash(call) == hash(function)
        assert {call: 1}[function] == {function: 1}[call] == 1


def test_calls_of_what_is_equal_only_to_its_like_are_equal(context):
    """Two calls of one callable are equal, also where it is equal to nothing of another type."""

    class Strict:
        def __eq__(self, other):
            return type(other) is Strict

        __hash__ = object.__hash__

        def __call__(self):
            """Do nothing."""

    assert Call(context, Strict()) == Call(context, Strict())


def test_call_of_something_unhashable_is_unhashable(context):
    """A callable that cannot be hashed cannot be hashed when it is handed off either."""

    class Unhashable:
        __hash__ = None

        def __call__(self):
            """Do nothing."""

    with pytest.raises(TypeError, match="unhashable type"):
        hash(Call(context, Unhashable()))


def test_call_is_shown_as_its_function(context):
    """`repr` and `str` are the function's."""
    assert repr(Call(context, add)) == repr(add)
    assert str(Call(context, add)) == str(add)
    assert f"{Call(context, add)}" == f"{add}"


# --- pickling and copying ---


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_call_unpickles_to_something_that_calls_the_function(context, protocol):
    """The pickled call runs the function, and does not carry a context."""
    restored = pickle.loads(pickle.dumps(Call(context, add), protocol))
    assert not isinstance(restored, Call)
    assert restored(1, right=3) == 4
    assert pickle.loads(pickle.dumps(Call(context, seen), protocol))() is None


def test_call_unpickles_where_the_library_is_not_installed(context):
    """A call that reaches another process can be unpickled there without us."""
    program = """
        import pickle, sys
        sys.modules["otel_concurrency"] = sys.modules["opentelemetry"] = None
        print(pickle.loads(sys.stdin.buffer.read())([3, 1, 2]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=pickle.dumps(Call(context, sorted)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.strip() == b"[1, 2, 3]"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["lambda", "closure", "lock", "generator"])
def test_unpicklable_function_fails_as_without_us(context, protocol, kind):
    """What cannot be pickled raises the same type of exception as the bare function does."""

    def closure():
        return context

    function = {
        "lambda": lambda: None,
        "closure": closure,
        "lock": threading.Lock().acquire,
        "generator": (_ for _ in ()).send,
    }[kind]
    with pytest.raises(Exception) as bare:  # noqa: PT011 - whatever it is, ours is the same
        pickle.dumps(function, protocol)
    with pytest.raises(Exception) as ours:  # noqa: PT011
        pickle.dumps(Call(context, function), protocol)
    assert ours.type is bare.type
    assert str(ours.value) == str(bare.value)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copied_call_runs_the_function(context, duplicate):
    """A copy calls the function too; the context stays with the original, which is one shot."""
    call = Call(context, seen)
    assert duplicate(call)() is None
    assert call() == "handed off"


# --- faults of ours ---


@pytest.mark.parametrize("name", ["attach", "detach"])
def test_broken_context_api_does_not_break_the_call(broken, context, caplog, name):
    """With a broken context API the function runs with its result, and there is one warning."""
    broken(name)
    assert [Call(context, add)(1) for _ in range(3)] == [3, 3, 3]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{name} is broken" in record.getMessage()


def test_broken_detach_does_not_hide_the_users_exception(broken, context):
    """The user's exception passes also where detaching fails."""
    broken("detach")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Call(context, add)()


def test_broken_get_current_is_reported_once(broken, caplog):
    """Asking for the current context never raises."""
    broken("get_current")
    assert handoff.current_safely() is None
    assert handoff.current_safely() is None
    assert len(caplog.records) == 1


def test_each_step_has_its_own_report(broken, context, caplog):
    """Two causes are two warnings."""
    broken("attach")
    for _ in range(3):
        Call(context, add)(1)
    broken("get_current")
    for _ in range(3):
        Call(context, add)(1)
        handoff.current_safely()
    assert len(caplog.records) == 2


# --- attach and leave ---


def test_attach_and_leave_are_a_pair(context):
    """Leaving takes off what was attached."""
    attached = handoff.attach_safely(context)
    assert context_api.get_current() is context
    handoff.leave(attached)
    assert not context_api.get_current()


def test_leave_takes_off_what_was_attached_on_top(context):
    """Leaving also takes off what user code has attached since and forgotten."""
    attached = handoff.attach_safely(context)
    for number in range(3):
        context_api.attach(context_api.set_value("key", number))
    handoff.leave(attached)
    assert not context_api.get_current()


def test_leave_of_nothing_does_nothing(current):
    """Where attaching failed there is nothing to leave."""
    handoff.leave(None)
    assert context_api.get_current() is current
