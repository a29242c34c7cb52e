"""The environment of a process as a carrier: of those that are started, and of this one.

Each child is a real one; what is looked at is the environment that it had.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import handoff
from otel_concurrency._crossing import environment as _environment

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
COMMAND = [sys.executable, "-I", "-S", "-c", SHOW]
LINE = shlex.join(COMMAND)
DEADLINE = 60
NAMES = ("TRACEPARENT", "TRACESTATE", "BAGGAGE", "OTEL_CONCURRENCY_LINK")
STRANGER = "00-000000000000000000000000000000aa-00000000000000bb-01"


# --- what starts a child ---


def popen(**env: Any) -> str:
    """With `Popen` itself."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, **env) as process:
        return process.communicate(timeout=DEADLINE)[0]


def popen_by_position(env: Any = None) -> str:
    """With `Popen`, and `env` at its position."""
    arguments = (COMMAND, -1, None, None, subprocess.PIPE, None, None, True, False, None, env)
    with subprocess.Popen(*arguments) as process:
        return process.communicate(timeout=DEADLINE)[0].decode()


class Derived(subprocess.Popen):
    """A subclass of the user's that has its own idea of the arguments."""

    def __init__(self, command, **kwargs):
        super().__init__(args=command, stdout=subprocess.PIPE, text=True, **kwargs)


def derived(**env: Any) -> str:
    """With a subclass of the user's."""
    with Derived(COMMAND, **env) as process:
        return process.communicate(timeout=DEADLINE)[0]


def run(**env: Any) -> str:
    """With `run`."""
    return subprocess.run(
        COMMAND, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, **env
    ).stdout


def check_output(**env: Any) -> str:
    """With `check_output`."""
    return subprocess.check_output(COMMAND, text=True, timeout=DEADLINE, **env)


def call(**env: Any) -> str:
    """With `call`."""
    read, write = os.pipe()
    with os.fdopen(read) as reader:
        with os.fdopen(write, "w") as writer:
            assert subprocess.call(COMMAND, stdout=writer, timeout=DEADLINE, **env) == 0
        return reader.read()


def shell(**env: Any) -> str:
    """With `shell=True`."""
    return subprocess.check_output(LINE, shell=True, text=True, timeout=DEADLINE, **env)


def os_popen() -> str:
    """With `os.popen`."""
    with os.popen(LINE) as pipe:
        return pipe.read()


def create_subprocess_exec(**env: Any) -> str:
    """With asyncio, the program itself."""

    async def main() -> str:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdout=asyncio.subprocess.PIPE, **env
        )
        return (await asyncio.wait_for(process.communicate(), DEADLINE))[0].decode()

    return asyncio.run(main())


def create_subprocess_shell(**env: Any) -> str:
    """With asyncio, through a shell."""

    async def main() -> str:
        process = await asyncio.create_subprocess_shell(LINE, stdout=asyncio.subprocess.PIPE, **env)
        return (await asyncio.wait_for(process.communicate(), DEADLINE))[0].decode()

    return asyncio.run(main())


@dataclass(frozen=True)
class Form:
    """A way to start a child that prints its environment."""

    start: Callable[..., str]
    takes_env: bool = True
    setting: str = "subprocess"

    def environment(self, **env: Any) -> dict[str, str]:
        """Start a child; return the environment that it had."""
        return json.loads(self.start(**env))

    def carried(self, **env: Any) -> dict[str, str]:
        """Start a child; return what of its environment carries something."""
        found = self.environment(**env)
        return {name: found[name] for name in NAMES if name in found}


FORMS = {
    function.__name__: Form(function, takes_env=function is not os_popen)
    for function in (
        popen,
        popen_by_position,
        derived,
        run,
        check_output,
        call,
        shell,
        os_popen,
        create_subprocess_exec,
        create_subprocess_shell,
    )
}
POPEN = FORMS["popen"]

all_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
forms_with_env = pytest.mark.parametrize(
    "form",
    [form for form in FORMS.values() if form.takes_env],
    ids=[name for name, form in FORMS.items() if form.takes_env],
)


@pytest.fixture(autouse=True)
def _no_carrier_around(monkeypatch):
    """Let no variable of a surrounding process be taken for one of a test."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def instrument():
    """Return what switches the library on, with subprocesses."""
    instrumentor = ConcurrencyInstrumentor()

    def switch_on(**settings):
        instrumentor.instrument(**{"subprocess": "parent", **settings})
        return instrumentor

    yield switch_on
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def propagators():
    """Return what configures the global propagators for the length of a test."""
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


def traceparent(span):
    """Return a span as it stands in TRACEPARENT."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def with_baggage(**entries):
    """Make baggage current; return the token."""
    context = context_api.get_current()
    for name, value in entries.items():
        context = baggage.set_baggage(name, value, context)
    return context_api.attach(context)


# --- what is started ---


@all_forms
def test_child_has_the_current_context_in_its_environment(form, instrument, tracer):
    """A child finds the current span and baggage in the variables of the specification."""
    instrument()
    token = with_baggage(order="1042")
    with tracer.start_as_current_span("parent") as span:
        carried = form.carried()
    context_api.detach(token)
    assert carried == {"TRACEPARENT": traceparent(span), "BAGGAGE": "order=1042"}


@all_forms
def test_a_child_of_nobody_finds_nothing(form, instrument, tracer):
    """After a child that had a context, one that is started without finds none."""
    instrument()
    with tracer.start_as_current_span("parent"):
        form.carried()
    assert form.carried() == {}


@all_forms
def test_nothing_is_handed_on_unless_it_is_asked_for(form, instrumented, tracer):
    """With the settings as they are by default, children are started as they were before."""
    with tracer.start_as_current_span("parent"):
        assert form.carried() == {}


@forms_with_env
def test_a_given_environment_is_copied(form, instrument, tracer):
    """What the user gives as `env` reaches the child with the context added, and is not changed."""
    instrument()
    given = {"PATH": os.environ["PATH"], "MINE": "1"}
    before = dict(given)
    with tracer.start_as_current_span("parent") as span:
        found = form.environment(env=given)
    assert given == before
    assert "HOME" not in found
    assert (found["MINE"], found["TRACEPARENT"]) == ("1", traceparent(span))


@forms_with_env
def test_a_context_that_the_user_gives_wins(form, instrument, tracer):
    """Where `env` has a TRACEPARENT, nothing of ours is added to it."""
    instrument()
    token = with_baggage(order="1042")
    with tracer.start_as_current_span("parent"):
        carried = form.carried(env={**os.environ, "TRACEPARENT": STRANGER})
    context_api.detach(token)
    assert carried == {"TRACEPARENT": STRANGER}


def test_an_empty_context_that_the_user_gives_wins(instrument, tracer):
    """An empty TRACEPARENT in `env` is the user's way to hand nothing on."""
    instrument()
    with tracer.start_as_current_span("parent"):
        assert POPEN.carried(env={"TRACEPARENT": ""}) == {"TRACEPARENT": ""}


def test_baggage_that_the_user_gives_wins_alone(instrument, tracer):
    """Where `env` has only a BAGGAGE, that stays, and the span is handed on beside it."""
    instrument()
    token = with_baggage(order="1042")
    with tracer.start_as_current_span("parent") as span:
        carried = POPEN.carried(env={"BAGGAGE": "mine=1"})
    context_api.detach(token)
    assert carried == {"TRACEPARENT": traceparent(span), "BAGGAGE": "mine=1"}


class Ours(dict):
    """A mapping of the user's own kind."""


@pytest.mark.parametrize(
    "given",
    [
        {b"MINE": b"1"},
        {"MINE": b"1"},
        Ours(MINE="1"),
        MappingProxyType({"MINE": "1"}),
    ],
    ids=["bytes", "bytes as values", "a subclass", "a proxy"],
)
def test_other_mappings_keep_working(instrument, tracer, given):
    """Bytes, and mappings that are no plain dictionaries, reach the child as before."""
    instrument()
    with tracer.start_as_current_span("parent") as span:
        found = POPEN.environment(env=given)
    assert (found["MINE"], found["TRACEPARENT"]) == ("1", traceparent(span))
    assert len(given) == 1


@pytest.mark.parametrize("key", [b"TRACEPARENT", "TRACEPARENT"])
@pytest.mark.parametrize("value", [STRANGER.encode(), STRANGER])
def test_a_context_that_the_user_gives_as_bytes_wins(instrument, tracer, key, value):
    """A TRACEPARENT in bytes is a TRACEPARENT."""
    instrument()
    token = with_baggage(order="1042")
    with tracer.start_as_current_span("parent"):
        assert POPEN.carried(env={key: value}) == {"TRACEPARENT": STRANGER}
    context_api.detach(token)


def test_what_happens_before_the_command_counts(instrument, tracer):
    """What a `preexec_fn` does to its environment reaches the child, and so does the context."""

    def before():
        os.environ["FRUIT"] = "apple"
        os.putenv("VEGETABLE", "leek")

    instrument()
    with tracer.start_as_current_span("parent") as span:
        found = POPEN.environment(preexec_fn=before)
    wanted = {"FRUIT": "apple", "VEGETABLE": "leek", "TRACEPARENT": traceparent(span)}
    assert found.items() >= wanted.items()
    assert "TRACEPARENT" not in os.environ


def test_a_given_environment_wins_over_what_happens_before_the_command(instrument, tracer):
    """A `preexec_fn` does nothing to an environment that is given."""
    instrument()
    with tracer.start_as_current_span("parent") as span:
        found = POPEN.environment(env={}, preexec_fn=lambda: os.putenv("FRUIT", "apple"))
    assert (found.get("FRUIT"), found["TRACEPARENT"]) == (None, traceparent(span))


WARNED = """
import subprocess, sys
from opentelemetry import baggage, context
from otel_concurrency import ConcurrencyInstrumentor
if sys.argv[1] == "on":
    ConcurrencyInstrumentor().instrument(subprocess="parent")
    context.attach(baggage.set_baggage("order", "1042"))
subprocess.run("true", shell=True, text=True)
subprocess.Popen("true", shell=True, text=True).wait()
"""


if sys.version_info >= (3, 11):  # it warns

    def test_warnings_are_laid_to_the_caller(tmp_path):
        """A warning of `Popen` names the caller's line, as it does without the library."""
        program = tmp_path / "program.py"
        program.write_text(WARNED)
        command = [sys.executable, "-X", "warn_default_encoding", str(program)]
        plain, ours = (
            subprocess.run([*command, on], capture_output=True, encoding="utf-8", timeout=DEADLINE)
            for on in ("off", "on")
        )
        assert f"{program}:8: EncodingWarning" in plain.stderr
        assert f"{program}:9: EncodingWarning" in plain.stderr
        assert ours.stderr == plain.stderr


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((COMMAND,), {"env": 5}),
        ((COMMAND,), {"env": [("A", "B")]}),
        ((COMMAND,), {"env": {"A=B": "C"}}),
        ((COMMAND,), {"env": {"A": None}}),
        ((COMMAND,), {"env": {5: "B"}}),
        ((COMMAND,), {"no_such_argument": 1}),
        ((["/no/such/program"],), {}),
        ((COMMAND, *[None] * 5, None, True, False, None, {}), {"env": {}}),
    ],
)
def test_what_cannot_be_started_fails_as_before(instrument, tracer, caplog, arguments, keywords):
    """A wrong call raises the same exception, with the same words, and nothing is logged."""
    with pytest.raises(Exception) as plain:  # noqa: PT011
        subprocess.Popen(*arguments, **keywords)
    instrument()
    with tracer.start_as_current_span("parent"), pytest.raises(Exception) as ours:  # noqa: PT011
        subprocess.Popen(*arguments, **keywords)
    assert (ours.type, str(ours.value)) == (plain.type, str(plain.value))
    assert caplog.records == []


def test_popen_looks_as_before(instrument):
    """Its signature, its class and its name are what they were."""
    before = inspect.signature(subprocess.Popen), subprocess.Popen, repr(subprocess.Popen.__init__)
    instrument()
    now = inspect.signature(subprocess.Popen), subprocess.Popen, repr(subprocess.Popen.__init__)
    assert now[:2] == before[:2]
    assert now[2].split(" at ")[0] == before[2].split(" at ")[0]


def test_a_propagator_that_fails_stops_nobody(instrument, tracer, propagators, caplog):
    """A fault of a propagator is reported once, and children are started as they were before."""

    class Broken(B3SingleFormat):
        def inject(self, *args, **kwargs):
            raise ValueError("broken")

    instrument()
    propagators(Broken())
    with tracer.start_as_current_span("parent"):
        assert POPEN.carried() == {}
        assert POPEN.carried() == {}
    assert ["broken" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "\N{SNOWMAN}"])
def test_what_no_environment_may_have_stays_here(instrument, tracer, propagators, caplog, value):
    """A header that is no header is reported, and the child is started without."""

    class Wild(B3SingleFormat):
        fields = {"wild"}  # noqa: RUF012

        def inject(self, carrier, context=None, setter=None):
            setter.set(carrier, "wild", value)

    instrument()
    propagators(Wild())
    with tracer.start_as_current_span("parent"):
        assert "WILD" not in POPEN.environment()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("propagator", "names"),
    [
        (B3MultiFormat(), {"X_B3_TRACEID", "X_B3_SPANID", "X_B3_SAMPLED"}),
        (B3SingleFormat(), {"B3"}),
    ],
    ids=["B3 multi", "B3 single"],
)
def test_headers_of_other_propagators_are_spelled_alike(
    instrument, tracer, propagators, monkeypatch, propagator, names
):
    """The names of B3's headers are normalised, and are read by a child that has B3 too."""
    propagators(propagator)
    instrumentor = instrument()
    with tracer.start_as_current_span("parent") as span:
        found = POPEN.environment()
    assert {name for name in found if "B3" in name} == names
    instrumentor.uninstrument()
    for name in names:
        monkeypatch.setenv(name, found[name])
    instrument()
    assert trace.get_current_span().get_span_context().span_id == span.get_span_context().span_id


# --- what this process was started with ---


@pytest.fixture
def started_with(monkeypatch, instrument):
    """Return what switches the library on in a process that was started with some variables."""

    def start(settings=MappingProxyType({}), **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return instrument(**settings)

    return start


def test_process_joins_the_trace_that_it_was_started_in(started_with, tracer):
    """Spans and baggage of the main thread, of threads and of tasks belong to the starter's."""
    started_with(TRACEPARENT=STRANGER, TRACESTATE="a=1", BAGGAGE="order=1042")
    found = []

    def work():
        span = tracer.start_span("work")
        parent = span.parent
        found.append((parent.trace_id, parent.span_id, parent.is_remote, dict(parent.trace_state)))
        found.append(baggage.get_all())

    async def task():
        work()

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE)
    asyncio.run(task())
    assert found == [(0xAA, 0xBB, True, {"a": "1"}), {"order": "1042"}] * 3


def test_the_base_context_is_taken_away_again(started_with):
    """`uninstrument()` leaves the main thread without a context, and remembers nothing."""
    instrumentor = started_with(TRACEPARENT=STRANGER)
    assert context_api.get_current()
    instrumentor.uninstrument()
    assert not context_api.get_current()
    assert threading.get_ident() not in handoff.bodies


def test_a_context_on_top_of_the_base_is_left_alone(started_with, tracer):
    """`uninstrument()` inside a span does not end it for anybody."""
    instrumentor = started_with(TRACEPARENT=STRANGER)
    with tracer.start_as_current_span("work") as span:
        instrumentor.uninstrument()
        assert trace.get_current_span() is span
    assert trace.get_current_span().get_span_context().span_id == 0xBB
    context_api.attach(context_api.Context())


def test_nothing_is_attached_over_a_context(started_with, tracer):
    """Where `instrument()` is called inside a span, that span stays the current one."""
    with tracer.start_as_current_span("work") as span:
        started_with(TRACEPARENT=STRANGER)
        assert trace.get_current_span() is span
    assert not context_api.get_current()


def test_only_the_main_thread_joins(monkeypatch):
    """`instrument()` on another thread leaves no context on it."""
    monkeypatch.setenv("TRACEPARENT", STRANGER)
    instrumentor, found = ConcurrencyInstrumentor(), []

    def switch_on():
        instrumentor.instrument(subprocess="parent")
        found.append(dict(context_api.get_current()))

    thread = threading.Thread(target=switch_on)
    thread.start()
    thread.join(DEADLINE)
    instrumentor.uninstrument()
    assert found == [{}]


def test_nothing_is_read_unless_it_is_asked_for(monkeypatch, instrumented):
    """With the settings as they are by default, the environment is nobody's parent."""
    monkeypatch.setenv("TRACEPARENT", STRANGER)
    instrumented.uninstrument()
    instrumented.instrument()
    assert not context_api.get_current()


@pytest.mark.parametrize("value", ["nonsense", "00-0-0-01", STRANGER.replace("aa", "00")])
def test_a_malformed_header_is_one_warning(started_with, caplog, value):
    """What is no span context is quoted in a warning; the process starts as without it."""
    started_with(TRACEPARENT=value)
    assert not trace.get_current_span().get_span_context().is_valid
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"TRACEPARENT={value!r}" in record.getMessage()


def test_malformed_baggage_is_one_warning(started_with, caplog):
    """What is no baggage is warned of by its propagator, and the span counts nonetheless."""
    started_with(TRACEPARENT=STRANGER, BAGGAGE="no baggage")
    assert trace.get_current_span().get_span_context().span_id == 0xBB
    assert len(caplog.records) == 1


def test_bytes_that_are_no_text_are_one_warning(started_with, caplog):
    """What no propagator can read is quoted in a warning, and the span counts nonetheless."""
    started_with(TRACEPARENT=STRANGER, BAGGAGE=os.fsdecode(b"key=\xff"))
    assert trace.get_current_span().get_span_context().span_id == 0xBB
    [record] = caplog.records
    assert r"BAGGAGE='key=\udcff'" in record.getMessage()


def test_empty_is_unset(started_with, caplog, tracer):
    """An empty variable is neither malformed nor anybody's word."""
    started_with(TRACEPARENT="", BAGGAGE="")
    assert not context_api.get_current()
    with tracer.start_as_current_span("work") as span:
        assert POPEN.carried() == {"TRACEPARENT": traceparent(span)}
    assert caplog.records == []


def test_a_consumer_in_the_main_thread_adopts_items(started_with, tracer):
    """The base context is nothing of the main thread's own: what it gets it adopts."""
    import queue

    started_with(TRACEPARENT=STRANGER)
    items = queue.Queue()
    with tracer.start_as_current_span("producer") as span:
        items.put("item")
    items.get()
    assert trace.get_current_span() is span
    items.task_done()
    assert trace.get_current_span().get_span_context().span_id == 0xBB


@forms_with_env
@pytest.mark.parametrize(
    "given",
    [dict, lambda: {"env": dict(os.environ)}, lambda: {"env": dict(os.environb)}],
    ids=["inherited", "copied by the user", "copied in bytes"],
)
def test_what_was_inherited_is_not_handed_on_as_the_current_context(
    form, given, started_with, tracer
):
    """A child of a span finds that span, and nothing of what this process was started with."""
    started_with(TRACEPARENT=STRANGER, TRACESTATE="a=1", BAGGAGE="stale=1")
    token = context_api.attach(context_api.Context())
    with tracer.start_as_current_span("work") as span:
        carried = form.carried(**given())
    context_api.detach(token)
    assert carried == {"TRACEPARENT": traceparent(span)}


def test_the_base_context_is_handed_on(started_with):
    """A command that makes no span stands in no way: its children join the same trace."""
    started_with(TRACEPARENT=STRANGER, TRACESTATE="a=1", BAGGAGE="order=1042")
    assert POPEN.carried() == {
        "TRACEPARENT": STRANGER,
        "TRACESTATE": "a=1",
        "BAGGAGE": "order=1042",
    }


def test_what_the_program_puts_into_its_environment_is_its_word(started_with, tracer, monkeypatch):
    """A TRACEPARENT that the program has set since its start is handed on as it is."""
    started_with(TRACEPARENT=STRANGER)
    own = STRANGER.replace("bb", "cc")
    monkeypatch.setenv("TRACEPARENT", own)
    with tracer.start_as_current_span("work"):
        assert POPEN.carried() == {"TRACEPARENT": own}


# --- links ---


def test_an_origin_is_linked_to_on_the_far_side(instrument, tracer, started_with):
    """Under the policy `link` a child finds no parent, and its spans are linked to the origin."""
    instrumentor = instrument(subprocess="link")
    token = with_baggage(order="1042")
    with tracer.start_as_current_span("parent") as span:
        carried = POPEN.carried()
    context_api.detach(token)
    assert set(carried) == {"OTEL_CONCURRENCY_LINK", "BAGGAGE"}
    instrumentor.uninstrument()
    started_with(**carried)
    work = tracer.start_span("work")
    assert work.parent is None
    [link] = work.links
    assert traceparent(trace.NonRecordingSpan(link.context)) == traceparent(span)
    assert dict(link.attributes) == {
        "otel_concurrency.link.reason": "policy",
        "otel_concurrency.link.primitive": "subprocess",
    }
    assert baggage.get_all() == {"order": "1042"}


def test_a_parent_is_linked_to_where_this_side_says_so(started_with, tracer):
    """Under the policy `link` a TRACEPARENT, whoever wrote it, is an origin and no parent."""
    started_with({"subprocess": "link"}, TRACEPARENT=STRANGER)
    work = tracer.start_span("work")
    assert work.parent is None
    assert [link.context.span_id for link in work.links] == [0xBB]


def test_a_malformed_link_is_one_warning(started_with, caplog):
    """What spells no origin is quoted in a warning; the process starts as without it."""
    started_with(OTEL_CONCURRENCY_LINK="nonsense")
    assert not context_api.get_current()
    [record] = caplog.records
    assert "OTEL_CONCURRENCY_LINK='nonsense'" in record.getMessage()


def test_an_inherited_link_is_not_handed_on_beside_a_parent(started_with, tracer):
    """A child of a span finds that span alone, also where this process was linked to another."""
    started_with(OTEL_CONCURRENCY_LINK=f"{STRANGER} policy subprocess")
    with tracer.start_as_current_span("work") as span:
        assert POPEN.carried() == {"TRACEPARENT": traceparent(span)}


# --- undo ---


def test_uninstrument_puts_popen_back(instrument):
    """`Popen._execute_child` is by identity what it was before."""
    before = vars(subprocess.Popen)["_execute_child"]
    instrumentor = instrument()
    assert vars(subprocess.Popen)["_execute_child"] is not before
    instrumentor.uninstrument()
    assert vars(subprocess.Popen)["_execute_child"] is before
    assert _environment._inherited == {}
