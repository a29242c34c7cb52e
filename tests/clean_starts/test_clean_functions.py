"""Functions and tasks of libraries that start clean: how they are found, and what they begin in.

The libraries themselves are tested in ``tests/adapters`` and ``tests/keep_alive``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import itertools
import queue
import sys
import types
from collections.abc import AsyncGenerator

import anyio
import pytest
from opentelemetry import baggage
from opentelemetry import context as context_api
from opentelemetry.context import attach, detach, get_value, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._clean_starts import functions, patches, tasks
from otel_concurrency._core import handoff
from otel_concurrency._core.patching import apply_all, undo_all

LIBRARY = '''
import asyncio

def listen(seen, /, *, name):
    """Start to listen."""
    seen(name)
    return name

async def connect(seen):
    seen("before")
    await asyncio.sleep(0)
    seen("after")
    return "connected"

class Client:
    async def read(self, seen):
        seen("before")
        await asyncio.sleep(0)
        seen("after")
        return self

    async def fails(self):
        raise ValueError("of the library")

    async def waits(self, event):
        await event.wait()

    @classmethod
    async def work(cls, seen):
        seen("work")
        return cls

    @staticmethod
    def begin(seen):
        seen("begin")

    async def get(self, message):
        return message

    async def messages(self):
        yield "one"
        yield "two"

    def every(self, call):
        """Call for ever, as long as somebody listens."""
        asyncio.get_running_loop().call_soon(self.again, call)

    def again(self, call):
        if call():
            self.every(call)
'''

TABLES = {
    "FLOWS": ("listen", "connect", "renamed_since", "Client.begin"),
    "TASKS": (
        "Client.read",
        "Client.fails",
        "Client.waits",
        "Client.work",
        "Client.renamed_since",
        "Gone.read",
    ),
    "ROUNDS": ("Client.every",),
    "SOURCES": ("Client.get", "Client.messages"),
}


@pytest.fixture
def library():
    """Return a library that is in the table, and the seam of the table."""
    module = types.ModuleType("library")
    exec(LIBRARY, vars(module))
    kinds = [
        ({"library": TABLES[name]}, wrap)
        for table, wrap in patches._KINDS
        for name in TABLES
        if table is getattr(tasks if name == "TASKS" else functions, name)
    ]
    seam = handoff.Seam("tests")
    seam.capture = handoff.capture
    layers = patches.layers(module, seam, kinds)
    before = dict(vars(module)), dict(vars(module.Client))
    apply_all(layers)
    module.seam = seam
    yield module
    del module.seam
    undo_all(layers)
    del handoff.seams["tests"]
    assert (dict(vars(module)), dict(vars(module.Client))) == before


class Seen:
    """Notes which request's context is current, at each call."""

    def __init__(self):
        self.values = []

    def __call__(self, name):
        self.values.append((name, get_value("request")))


@pytest.fixture
def seen():
    """Return what notes which request's context is current."""
    return Seen()


@pytest.fixture
def request_():
    """Have the context of a request current."""
    token = attach(set_value("request", "a"))
    yield
    assert get_value("request") == "a"
    detach(token)


@pytest.mark.usefixtures("request_")
class TestInsideARequest:
    def test_a_flow_begins_in_no_context(self, library, seen):
        """What it is given and what it returns is what it is without the library."""
        assert library.listen(seen, name="b") == "b"
        assert seen.values == [("b", None)]
        with pytest.raises(TypeError, match="name"):
            library.listen(seen)

    def test_an_asynchronous_flow_begins_in_no_context(self, library, seen):
        """As long as it is awaited; whoever awaits it goes on where he was."""

        async def main():
            result = await library.connect(seen)
            seen("the request")
            return result

        assert asyncio.run(main()) == "connected"
        assert seen.values == [("before", None), ("after", None), ("the request", "a")]

    def test_a_task_begins_in_no_context(self, library, seen):
        """In whichever way it was made; the request itself goes on where it was."""
        client = library.Client()

        async def main():
            assert await asyncio.create_task(client.read(seen)) is client
            assert await asyncio.gather(client.read(seen)) == [client]
            seen("the request")

        asyncio.run(main())
        assert seen.values == [*[("before", None), ("after", None)] * 2, ("the request", "a")]

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks do not begin at once")
    def test_a_task_that_begins_at_once_leaves_the_request_where_it_was(self, library, seen):
        """With an eager task factory, its first part runs while the task is made."""

        async def main():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            task = asyncio.create_task(library.Client().read(seen))
            seen("the request")
            await task

        asyncio.run(main())
        assert seen.values == [("before", None), ("the request", "a"), ("after", None)]

    def test_a_task_of_anyio_begins_in_no_context(self, library, seen):
        """A task group runs it inside a coroutine of its own."""

        async def main():
            async with anyio.create_task_group() as group:
                group.start_soon(library.Client().read, seen)

        asyncio.run(main())
        assert seen.values == [("before", None), ("after", None)]

    def test_what_is_awaited_is_part_of_the_request(self, library, seen):
        """A coroutine that somebody waits for is in the context of who waits."""

        async def main():
            await library.Client().read(seen)
            await asyncio.create_task(waits())

        async def waits():
            await library.Client().read(seen)

        asyncio.run(main())
        assert seen.values == [("before", "a"), ("after", "a")] * 2

    def test_methods_of_a_class_stay_what_they_are(self, library, seen):
        """A class method and a static method are called as they were."""

        async def main():
            assert await asyncio.create_task(library.Client.work(seen)) is library.Client
            library.Client().begin(seen)

        asyncio.run(main())
        assert seen.values == [("work", None), ("begin", None)]
        assert [type(vars(library.Client)[name]) for name in ("work", "begin")] == [
            classmethod,
            staticmethod,
        ]

    def test_errors_pass_untouched(self, library):
        """A task that fails does so as it did."""

        async def main():
            await asyncio.create_task(library.Client().fails())

        with pytest.raises(ValueError, match="of the library"):
            asyncio.run(main())

    def test_switched_off_it_passes_through(self, library, seen):
        """Where a layer stays, since somebody else has patched on top, it does nothing."""
        library.seam.switch_off()

        async def main():
            await library.connect(seen)
            await asyncio.create_task(library.Client().read(seen))

        library.listen(seen, name="b")
        asyncio.run(main())
        assert {value for _, value in seen.values} == {"a"}


def test_a_task_keeps_nothing_of_who_has_made_it(library, tracer):
    """While it waits, and for ever, nothing of ours refers to the request's span."""

    async def main():
        forever = asyncio.Event()

        with tracer.start_as_current_span("request") as span:
            task = asyncio.create_task(library.Client().waits(forever))
            reference = weak_reference(span)
        del span
        await asyncio.sleep(0)
        gc.collect()
        found = reference()
        forever.set()
        await task
        return found

    assert asyncio.run(main()) is None


def test_rounds_are_linked_to_where_they_were_started(library, tracer):
    """Each is a root with a link, and has the baggage of the request, also when that is over."""
    found = []

    async def main():
        done = asyncio.Event()

        def call():
            with tracer.start_as_current_span("round") as span:
                found.append((span.parent, [link.context for link in span.links]))
                found.append(baggage.get_baggage("tenant"))
            if len(found) == 6:
                done.set()
            return len(found) < 6

        token = attach(baggage.set_baggage("tenant", "a"))
        with tracer.start_as_current_span("request") as span:
            library.Client().every(call)
        detach(token)
        await done.wait()
        return span.get_span_context()

    ConcurrencyInstrumentor().instrument()
    try:
        started_in = asyncio.run(main())
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert found == [(None, [started_in]), "a"] * 3


def test_rounds_that_nobody_has_started_are_roots(library, tracer):
    """Without a span there is nothing to link to."""
    found = []

    async def main():
        done = asyncio.Event()

        def call():
            span = tracer.start_span("round")
            found.append((span.parent, span.links))
            done.set()

        library.Client().every(call)
        await done.wait()

    asyncio.run(main())
    assert found == [(None, ())]


@pytest.mark.parametrize("how", ["get", "messages"])
def test_who_gets_a_message_leaves_a_request_that_is_over(how, library, tracer):
    """As long as it goes on, what is got is part of it; of one that never was, too."""
    client, found = library.Client(), []

    async def consume():
        if how == "get":
            await client.get(None)
            found.append(bool(context_api.get_current()))
            assert await client.get("one") == "one"
            found.append(bool(context_api.get_current()))
        else:
            messages = client.messages()
            assert isinstance(messages, AsyncGenerator)
            found.append(bool(context_api.get_current()))
            async for message in messages:
                assert message in ("one", "two")
            found.append(bool(context_api.get_current()))
            assert await anext(messages, "ended") == "ended"

    async def main():
        with tracer.start_as_current_span("request"):
            await asyncio.create_task(consume())
            task = asyncio.create_task(consume())
        await task
        token = attach(set_value("key", "value"))
        await consume()
        detach(token)

    asyncio.run(main())
    assert found == [True, True, True, False, True, True]


def test_a_generator_of_messages_is_closed_and_thrown_into(library):
    """As one of Python's own is."""

    async def main():
        messages = library.Client().messages()
        assert await messages.asend(None) == "one"
        with pytest.raises(ValueError, match="of the program"):
            await messages.athrow(ValueError("of the program"))
        messages = library.Client().messages()
        async for _ in messages:
            break
        await messages.aclose()
        assert messages.ag_frame is None
        assert [message async for message in messages] == []

    asyncio.run(main())


def test_functions_stay_what_they_are(library):
    """Names, signatures, and whether they are coroutine functions."""
    assert inspect.signature(library.listen).parameters.keys() == {"seen", "name"}
    assert library.listen.__doc__ == "Start to listen."
    assert not inspect.iscoroutinefunction(library.listen)
    assert inspect.iscoroutinefunction(library.connect)
    assert inspect.iscoroutinefunction(library.Client().read)
    assert library.Client.read.__qualname__ == "Client.read"


def test_the_table_is_well_formed():
    """Each entry names a function, of a module that no other entry is about twice."""
    for table in (functions.FLOWS, tasks.TASKS, functions.ROUNDS, functions.SOURCES):
        for module, names in table.items():
            assert all(part.isidentifier() for part in module.split("."))
            assert names
            assert len(set(names)) == len(names)
            assert all(part.isidentifier() for name in names for part in name.split("."))
    assert not context_api.get_current()


def test_a_flow_knows_nothing_of_an_item_that_its_caller_has_adopted(library):
    """What it begins lets go of nothing that is not its own; the caller goes on where it was."""
    items, found = queue.Queue(), []
    ConcurrencyInstrumentor().instrument()
    try:
        token = attach(set_value("request", "a"))
        items.put("item")
        detach(token)
        items.get()
        before = handoff.adopted.get()
        assert get_value("request") == "a"
        assert before is not None
        library.listen(lambda _: found.append(handoff.adopted.get()), name="b")
        assert found == [None]
        assert handoff.adopted.get() is before
        assert get_value("request") == "a"
        items.task_done()
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert not context_api.get_current()


# --- the user's own ---

POLLER = """
import asyncio

async def poll(seen):
    seen("poll")

async def other(seen):
    seen("other")

class Poller:
    async def run(self, seen):
        seen("run")

    @classmethod
    async def of_class(cls, seen):
        seen("of_class")

    class Inner:
        async def beat(self, seen):
            seen("beat")

def plain(seen):
    seen("plain")
"""


packages = itertools.count()
"""For a name of its own for each package: import hooks are for the first import of a name."""


@pytest.fixture
def poller(tmp_path, monkeypatch):
    """Return the name of a module of the user's that has pollers, and what imports it."""
    name = f"users_package_{next(packages)}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "pollers.py").write_text(POLLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield f"{name}.pollers", lambda: importlib.import_module(f"{name}.pollers")
    for each in (f"{name}.pollers", name):
        sys.modules.pop(each, None)


@pytest.mark.parametrize("order", ["imported first", "instrumented first"])
@pytest.mark.parametrize(
    ("excluded", "clean"),
    [
        ("NAME.poll", {"poll"}),
        ("NAME.Poller", {"run", "of_class", "beat"}),
        ("NAME.Poller.Inner, NAME.other", {"beat", "other"}),
        ("NAME.Poller.ru*", {"run"}),
        ("NAME", {"poll", "other", "run", "of_class", "beat"}),
        ("NAME.Poll", set()),
        ("NAME.plain, nowhere.at_all", set()),
    ],
)
def test_coroutine_functions_that_the_user_names_start_clean(
    excluded, clean, order, poller, seen, request_
):
    """As tasks; by the same words as threads and callables."""
    name, import_it = poller
    if order == "imported first":
        import_it()
    ConcurrencyInstrumentor().instrument(excluded=excluded.replace("NAME", name))
    try:
        module = import_it()
        before = {owner: dict(vars(owner)) for owner in (module, module.Poller)}

        async def main():
            await module.poll(seen)  # is not a task
            module.plain(seen)
            seen.values.clear()
            for coroutine in (
                module.poll(seen),
                module.other(seen),
                module.Poller().run(seen),
                module.Poller.of_class(seen),
                module.Poller.Inner().beat(seen),
            ):
                await asyncio.create_task(coroutine)

        asyncio.run(main())
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert {name for name, value in seen.values if value is None} == clean
    assert len(seen.values) == 5
    for owner, attributes in before.items():
        for name, raw in attributes.items():
            ours = "_clean_starts" in getattr(
                getattr(getattr(raw, "__func__", raw), "__code__", None), "co_filename", ""
            )
            assert (vars(owner)[name] is raw) is not ours
