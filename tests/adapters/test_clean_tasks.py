"""Tasks and callbacks that libraries run for ever: a request that starts one leaves nothing there.

Each program starts the library's own inside a request, makes it work for another one while the
first request still goes on and again when it is over, and prints what each piece of work found.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings

import pytest
from servers import INSTALLED
from suite import IMPORT_FIRST, INSTRUMENT_FIRST, run_program
from task_programs import PROGRAMS as MORE_PROGRAMS

import watching
from otel_concurrency._clean_starts import patches
from otel_concurrency._clean_starts.functions import FLOWS, IMPORTED_BY, ROUNDS, SOURCES
from otel_concurrency._clean_starts.tasks import TASKS
from otel_concurrency._core import handoff
from otel_concurrency._core.patching import Layer, apply_all, undo_all

ORDERS = {"imported first": IMPORT_FIRST, "instrumented first": INSTRUMENT_FIRST}

PRELUDE = """
import asyncio, contextlib, json, sys
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("program")
PORT = int(sys.argv[1])
names, marks = {}, []
marked = None

@contextlib.contextmanager
def request(name):
    token = context.attach(baggage.set_baggage("tenant", name))
    with tracer.start_as_current_span(name) as span:
        names[span.get_span_context().span_id] = name
        yield
    context.detach(token)

def mark(*_, **__):
    span = tracer.start_span("work")
    parent = span.parent and names[span.parent.span_id]
    links = [names[link.context.span_id] for link in span.links]
    marks.append([parent, baggage.get_baggage("tenant"), links])
    span.end()
    marked.set()

async def mark_it(*_, **__):
    mark()

async def until_marked():
    await asyncio.wait_for(marked.wait(), 20)
    marked.clear()

async def work_twice(send):
    with request("another"):
        await send()
    await until_marked()

def run(main):
    async def limited():
        global marked
        marked = asyncio.Event()
        await asyncio.wait_for(main(), 60)
    asyncio.run(limited())
    print(json.dumps(marks))
"""

REDIS = """
from redis.asyncio import Redis

async def main():
    async with Redis(port=PORT) as client, client.pubsub() as pubsub:
        async def send():
            await client.publish("channel", "message")
        with request("first"):
            await pubsub.subscribe(channel=HANDLER)
            task = asyncio.create_task(pubsub.run())
            await work_twice(send)
        await work_twice(send)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
run(main)
"""

REDIS_LOOP = """
from redis.asyncio import Redis

async def main():
    async with Redis(port=PORT) as client, client.pubsub() as pubsub:
        async def send():
            await client.publish("channel", "message")
        async def consume():
            CONSUME
        await pubsub.subscribe("channel")
        await pubsub.get_message(timeout=20)
        with request("first"):
            task = asyncio.create_task(consume())
        await work_twice(send)
        await work_twice(send)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
run(main)
"""

WATCHFILES = """
import pathlib, tempfile
import watchfiles

async def main():
    directory = pathlib.Path(tempfile.mkdtemp())
    async def send():
        while not marked.is_set():
            (directory / "file").write_text(str(len(marks)))
            (directory / str(len(marks))).touch()
            await asyncio.sleep(0.05)
    START
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
run(main)
"""

AWATCH = """
    async def watch():
        async for changes in watchfiles.awatch(directory, step=5, debounce=10):
            mark()
    with request("first"):
        task = asyncio.create_task(watch())
    await work_twice(send)
    await work_twice(send)
"""

ARUN = """
    with request("first"):
        task = asyncio.create_task(watchfiles.arun_process(
            directory, target="true", target_type="command", callback=mark_it, step=5, debounce=10
        ))
        await work_twice(send)
    await work_twice(send)
"""

WEBSOCKETS = """
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def main():
    async def handle(connection):
        async for message in connection:
            mark()
    with request("first"):
        server = await serve(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as client:
            await work_twice(lambda: client.send("message"))
    async with connect(f"ws://127.0.0.1:{port}") as client:
        await work_twice(lambda: client.send("message"))
    server.close()
    await server.wait_closed()
run(main)
"""

WEBSOCKETS_KEEPALIVE = """
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def main():
    async def handle(connection):
        await connection.wait_closed()
    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with request("first"):
            client = await connect(f"ws://127.0.0.1:{port}", ping_interval=0.01)
            ping = client.ping
            def pinged(*args):
                mark()
                return ping(*args)
            client.ping = pinged
            await until_marked()
        await until_marked()
        await client.close()
run(main)
"""

ASYNCPG = """
import asyncpg

async def main():
    connect = lambda: asyncpg.connect(user="postgres", host="127.0.0.1", port=PORT)
    other = await connect()
    async def send():
        await other.execute("notify channel, 'message'")
    with request("first"):
        connection = await connect()
        await connection.add_listener("channel", LISTENER)
        await work_twice(send)
    await work_twice(send)
    await connection.close()
    await other.close()
run(main)
"""

ASYNCPG_LOG = """
import asyncpg

async def main():
    with request("first"):
        connection = await asyncpg.connect(user="postgres", host="127.0.0.1", port=PORT)
        connection.add_log_listener(mark)
        connection.add_termination_listener(mark)
        await connection.execute("do $$ begin raise notice 'message'; end $$")
        await until_marked()
    with request("another"):
        connection.terminate()
    await until_marked()
run(main)
"""

AIORMQ = """
import aiormq

async def main():
    other = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{PORT}/")
    sending = await other.channel()
    await sending.queue_declare("aiormq")
    async def send():
        await sending.basic_publish(b"message", routing_key="aiormq")
    with request("first"):
        connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{PORT}/")
        channel = await connection.channel()
        await channel.basic_consume("aiormq", mark_it, no_ack=True)
        await work_twice(send)
    await work_twice(send)
    await connection.close()
    await other.close()
run(main)
"""

AIO_PIKA = """
import aio_pika

async def main():
    other = await aio_pika.connect_robust(f"amqp://guest:guest@127.0.0.1:{PORT}/")
    sending = await other.channel()
    await sending.declare_queue("aio-pika")
    async def send():
        await sending.default_exchange.publish(aio_pika.Message(b"message"), "aio-pika")
    with request("first"):
        connection = await aio_pika.connect_robust(f"amqp://guest:guest@127.0.0.1:{PORT}/")
        channel = await connection.channel()
        queue = await channel.declare_queue("aio-pika")
        await queue.consume(mark_it, no_ack=True)
        await work_twice(send)
    await work_twice(send)
    await connection.close()
    await other.close()
run(main)
"""

NATS = """
import nats

async def main():
    other = await nats.connect(f"nats://127.0.0.1:{PORT}")
    async def send():
        await other.publish("subject", b"message")
        await other.flush()
    with request("first"):
        client = await nats.connect(f"nats://127.0.0.1:{PORT}")
        await client.subscribe("subject", cb=mark_it)
        for _ in range(2):  # nats-py sends the first PING ahead of what it is to flush
            await client.flush()
        await work_twice(send)
    await work_twice(send)
    await client.close()
    await other.close()
run(main)
"""

NATS_LOOP = """
import nats

async def main():
    other = await nats.connect(f"nats://127.0.0.1:{PORT}")
    async def send():
        await other.publish("subject", b"message")
        await other.flush()
    async def consume():
        async for message in subscription.messages:
            mark()
    with request("first"):
        client = await nats.connect(f"nats://127.0.0.1:{PORT}")
        subscription = await client.subscribe("subject")
        for _ in range(2):  # nats-py sends the first PING ahead of what it is to flush
            await client.flush()
        task = asyncio.create_task(consume())
    await work_twice(send)
    await work_twice(send)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.close()
    await other.close()
run(main)
"""

AIOMQTT = """
import aiomqtt

async def main():
    async with contextlib.AsyncExitStack() as until_done:
        other = await until_done.enter_async_context(aiomqtt.Client("127.0.0.1", PORT))
        async def send():
            await other.publish("topic", b"message", qos=1)
        async def consume():
            async for message in client.messages:
                mark()
        with request("first"):
            client = await until_done.enter_async_context(aiomqtt.Client("127.0.0.1", PORT))
            await client.subscribe("topic", qos=1)
            task = asyncio.create_task(consume())
        await work_twice(send)
        await work_twice(send)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
run(main)
"""

DISCORD = """
from discord.ext import tasks

@tasks.loop(seconds=0.01)
async def rounds():
    mark()

async def main():
    with request("first"):
        task = rounds.start()
        await until_marked()
    await until_marked()
    rounds.cancel()
    await asyncio.gather(task, return_exceptions=True)
run(main)
"""

AIOCRON = """
import aiocron

async def main():
    with request("first"):
        job = aiocron.crontab("* * * * * *", func=mark_it)
        await until_marked()
    await until_marked()
    job.stop()
run(main)
"""

AIOTOOLS = """
import aiotools

async def main():
    with request("first"):
        timer = aiotools.create_timer(mark_it, 0.01)
        await until_marked()
    await until_marked()
    timer.cancel()
    await asyncio.wait([timer])
run(main)
"""

BOKEH = """
from bokeh.document import Document
from bokeh.server.callbacks import DocumentCallbackGroup
from tornado.ioloop import IOLoop

async def main():
    document = Document()
    group = DocumentCallbackGroup(IOLoop.current())
    with request("first"):
        callback = document.add_periodic_callback(mark_it, 10)
        group.add_session_callback(callback)
        await until_marked()
    await until_marked()
    group.remove_all_callbacks()
    await asyncio.sleep(0)
run(main)
"""

TORNADO_PERIODIC = """
from tornado.ioloop import PeriodicCallback

async def main():
    with request("first"):
        periodic = PeriodicCallback(HANDLER, 10)
        periodic.start()
        await until_marked()
    await until_marked()
    periodic.stop()
run(main)
"""

GRPC = """
import grpc

async def main():
    async def handle(given, details):
        mark()
        return given
    handler = grpc.unary_unary_rpc_method_handler(handle)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"m": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/s/m")
        async def send():
            await call(b"message")
        with request("first"):
            await server.start()
            await work_twice(send)
        await work_twice(send)
    await server.stop(None)
run(main)
"""

AIOHTTP = """
import aiohttp
from aiohttp import web

async def main():
    async def handle(given):
        mark()
        return web.Response()
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    async with aiohttp.ClientSession() as session:
        async def send():
            async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/"):
                pass
        with request("first"):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await work_twice(send)
        await work_twice(send)
    await runner.cleanup()
run(main)
"""

SOCKETIO = """
import socketio
from aiohttp import web

async def main():
    # A client that polls is only told at the next ping that it may go.
    server = socketio.AsyncServer(async_mode="aiohttp", ping_interval=1, ping_timeout=1)
    application = web.Application()
    server.attach(application)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = socketio.AsyncClient()
    client.on("message", mark_it)
    with request("first"):
        await client.connect(f"http://127.0.0.1:{runner.addresses[0][1]}", transports=["websocket"])
        await work_twice(lambda: server.emit("message"))
    await work_twice(lambda: server.emit("message"))
    await client.disconnect()
    await runner.cleanup()
run(main)
"""

PROGRAMS = {
    **MORE_PROGRAMS,
    "socketio": ("socketio", None, SOCKETIO),
    "socketio, polling": ("socketio", None, SOCKETIO.replace("websocket", "polling")),
    "valkey": (
        "valkey.asyncio",
        "redis",
        REDIS.replace("HANDLER", "mark").replace("redis", "valkey").replace("Redis", "Valkey"),
    ),
    "redis, a function": ("redis.asyncio", "redis", REDIS.replace("HANDLER", "mark")),
    "redis, a coroutine": ("redis.asyncio", "redis", REDIS.replace("HANDLER", "mark_it")),
    "redis, listen": (
        "redis.asyncio",
        "redis",
        REDIS_LOOP.replace(
            "CONSUME", "async for message in pubsub.listen():\n                mark()"
        ),
    ),
    "redis, get_message": (
        "redis.asyncio",
        "redis",
        REDIS_LOOP.replace(
            "CONSUME", "while await pubsub.get_message(timeout=None):\n                mark()"
        ),
    ),
    "watchfiles, awatch": ("watchfiles", None, WATCHFILES.replace("    START\n", AWATCH)),
    "watchfiles, arun_process": ("watchfiles", None, WATCHFILES.replace("    START\n", ARUN)),
    "websockets": ("websockets.asyncio.client", None, WEBSOCKETS),
    "websockets, keepalive": ("websockets.asyncio.client", None, WEBSOCKETS_KEEPALIVE),
    "asyncpg, a function": ("asyncpg", "postgres", ASYNCPG.replace("LISTENER", "mark")),
    "asyncpg, a coroutine": ("asyncpg", "postgres", ASYNCPG.replace("LISTENER", "mark_it")),
    "asyncpg, log and end": ("asyncpg", "postgres", ASYNCPG_LOG),
    "aiormq": ("aiormq", "rabbitmq", AIORMQ),
    "aio-pika": ("aio_pika", "rabbitmq", AIO_PIKA),
    "nats": ("nats", "nats", NATS),
    "nats, messages": ("nats", "nats", NATS_LOOP),
    "aiomqtt": ("aiomqtt", "mosquitto", AIOMQTT),
    "grpc.aio": ("grpc.aio", None, GRPC),
    "aiohttp": ("aiohttp.web", None, AIOHTTP),
}
"""By name: the module, the server that it needs, and the program."""

PERIODIC = {
    "discord.py": ("discord.ext.tasks", DISCORD),
    "aiocron": ("aiocron", AIOCRON),
    "aiotools": ("aiotools", AIOTOOLS),
    "bokeh": ("bokeh.server.callbacks", BOKEH),
    "tornado, a function": ("tornado.ioloop", TORNADO_PERIODIC.replace("HANDLER", "mark")),
    "tornado, a coroutine": ("tornado.ioloop", TORNADO_PERIODIC.replace("HANDLER", "mark_it")),
}


def is_installed(module):
    """Whether a library is there; the gate says that all of them are."""
    there = importlib.util.find_spec(module.partition(".")[0]) is not None
    return there or "ALL_ADAPTERS" in os.environ


def is_there(server):
    """Whether a server can be run; the gate says that all of them can."""
    return server is None or INSTALLED[server] or "ALL_ADAPTERS" in os.environ


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "name", [name for name, (m, s, _) in PROGRAMS.items() if is_installed(m) and is_there(s)]
)
def test_work_of_others_begins_in_no_context(name, order, ports):
    """A span of it is a root without baggage, while the request goes on that started it, too."""
    module, server, program = PROGRAMS[name]
    port = "0" if server is None else ports(server)
    marks = json.loads(run_program(ORDERS[order].format(module=module) + PRELUDE + program, port))
    assert len(marks) >= 2
    assert {json.dumps(mark) for mark in marks} == {json.dumps([None, None, []])}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", [name for name, (m, _) in PERIODIC.items() if is_installed(m)])
def test_each_round_is_a_trace_of_its_own(name, order):
    """It has a link to the span in which the work was started, and the baggage."""
    module, program = PERIODIC[name]
    marks = json.loads(run_program(ORDERS[order].format(module=module) + PRELUDE + program, "0"))
    assert len(marks) >= 2
    assert {json.dumps(mark) for mark in marks} == {json.dumps([None, "first", ["first"]])}


@pytest.mark.parametrize("library", [False, True], ids=["off", "on"])
@pytest.mark.parametrize(
    "name",
    [
        *(name for name, (m, s, _) in PROGRAMS.items() if is_installed(m) and is_there(s)),
        *(name for name, (m, _) in PERIODIC.items() if is_installed(m)),
    ],
)
def test_without_the_library_each_is_a_leak(name, library, ports, tmp_path):
    """It is told with the line that has left the context there; with the library there is none."""
    _, server, text = PROGRAMS.get(name) or (None, None, PERIODIC[name][1])
    program = tmp_path / "program.py"
    program.write_text(f"{PRELUDE}\nsys.stderr = sys.stdout\n{text}", encoding="utf-8")
    port = "0" if server is None else ports(server)
    report = watching.run(tmp_path, str(program), port, library=library)
    reasons = {leak.reason for leak in report.leaks}
    if library:
        assert not report.leaks  # shown whole, and not their reasons alone, where it fails
        return
    assert reasons <= {"left_with_server", "left_with_task", "left_with_rounds"}, report.leaks
    assert ("left_with_rounds" in reasons) == (name in PERIODIC)
    assert reasons
    assert {leak.count for leak in report.leaks} != {0}
    for leak in report.leaks:
        assert leak.site is not None
        assert leak.site in leak.words


ANYIO = """
import anyio, json
from opentelemetry import context
seen = []

async def handle(stream):
    async with stream:
        seen.append(context.get_value("request"))

async def main(how):
    token = context.attach(context.set_value("request", "first"))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with anyio.create_task_group() as group:
        async def serve():
            await listener.serve(handle)
        if how == "awaited":
            group.start_soon(serve)
        else:
            group.start_soon(listener.serve, handle)
        context.detach(token)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        for _ in range(2):
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                with contextlib.suppress(anyio.EndOfStream):
                    await client.receive()
        group.cancel_scope.cancel()

import contextlib
for how in ("awaited", "in a task"):
    anyio.run(main, how, backend=BACKEND)
print(json.dumps(seen))
"""

TRIO = """
import json, trio, trio.testing
from opentelemetry import context
seen = []

async def handle(stream):
    async with stream:
        seen.append(context.get_value("request"))

async def main():
    async with trio.open_nursery() as nursery:
        token = context.attach(context.set_value("request", "first"))
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        context.detach(token)
        for _ in range(2):
            client = await trio.testing.open_stream_to_socket_listener(listeners[0])
            await client.receive_some(1)
        nursery.cancel_scope.cancel()

trio.run(main)
print(json.dumps(seen))
"""

ACCEPTING = {
    "anyio, asyncio": ("anyio", ANYIO.replace("BACKEND", "'asyncio'"), 4),
    "anyio, trio": ("trio", ANYIO.replace("BACKEND", "'trio'"), 4),
    "trio": ("trio", TRIO, 2),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", [name for name, (m, *_) in ACCEPTING.items() if is_installed(m)])
def test_what_a_listener_accepts_is_in_no_context(name, order):
    """Wherever it serves: in a task of its own, or awaited by one that was started in a request."""
    module, program, count = ACCEPTING[name]
    printed = run_program(ORDERS[order].format(module=module) + program)
    assert json.loads(printed) == [None] * count


def importers(functions, home):
    """Return the names of the loaded modules that have one of ``functions``, except ``home``."""
    package = home.__name__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if module is not home and name.partition(".")[0] == package:
            values = list(getattr(module, "__dict__", {}).values())
            if any(value is function for value in values for function in functions):
                yield name


TABLES = (FLOWS, TASKS, ROUNDS, SOURCES)


@pytest.mark.parametrize(
    "module", sorted({name for table in TABLES for name in table if is_installed(name)})
)
def test_entries_name_functions_of_the_library(module):
    """Each is there in the version that is installed, and is replaced; and undone exactly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are deprecated
        try:
            there = importlib.import_module(module)
        except ImportError:
            pytest.skip("this version has no such module")
    seam = handoff.Seam("tests")
    layers = [layer for layer in patches.layers(there, seam) if type(layer) is Layer]
    owners = {layer.owner for layer in layers}
    before = {owner: dict(vars(owner)) for owner in owners}
    try:
        apply_all(layers)
        assert all(layer.is_on_top for layer in layers)
    finally:
        undo_all(layers)
        del handoff.seams["tests"]
    assert {owner: dict(vars(owner)) for owner in owners} == before
    for owner, attributes in before.items():
        if owner is there:  # others of the library may have it by name
            functions = [attributes[layer.name] for layer in layers if layer.owner is owner]
            assert set(importers(functions, there)) <= {*IMPORTED_BY}
    named = {name for table in TABLES for name in table.get(module, ())}
    assert len(layers) == len(named), [(layer.owner, layer.name) for layer in layers]


@pytest.mark.skipif(not is_installed("watchfiles"), reason="it is about watchfiles")
@pytest.mark.parametrize("order", ORDERS)
def test_what_a_package_has_imported_from_itself_is_undone_exactly(order):
    """Whichever was first: each name is the library's own function again, by identity."""
    program = """
import watchfiles, watchfiles.main, watchfiles.run
places = [(watchfiles, "awatch"), (watchfiles.main, "awatch"), (watchfiles.run, "awatch"),
          (watchfiles, "arun_process"), (watchfiles.run, "arun_process")]
def found():
    return [getattr(module, name).__code__.co_filename.split("/")[-2] for module, name in places]
on = found()
I().uninstrument()
off = [vars(module)[name] for module, name in places]
print(on, found(), off[0] is off[1] is off[2], off[3] is off[4], off[0].__module__)
I().instrument()
print(found())
"""
    printed = run_program(ORDERS[order].format(module="watchfiles") + program)
    ours, theirs = ["_clean_starts"] * 5, ["watchfiles"] * 5
    assert printed == f"{ours} {theirs} True True watchfiles.main\n{ours}\n"
