"""A program that uses every primitive, and returns what it gets: with the library or without."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import importlib.util
import logging.handlers
import math
import multiprocessing
import multiprocessing.pool
import os
import queue
import sched
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import nullcontext, suppress
from typing import Any

from opentelemetry import baggage, metrics, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_concurrency import HandOff, batch, capture, clean, wrap

WAIT = 20
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))  # is flushed in children
metrics.set_meter_provider(MeterProvider(shutdown_on_exit=False))  # which forget measurements
TRACER = trace.get_tracer("everything")
UNSAMPLED = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("everything")
CONTEXT: Any = multiprocessing.get_context("fork")


def square(number: int) -> int:
    """Do some work, in a span."""
    with TRACER.start_as_current_span("square"):
        return number**2


def fail(*_: object) -> None:
    """Raise what the program raises."""
    raise LookupError("of the program")


def told(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a call returns, or raises."""
    try:
        return function(*args)
    except Exception as error:
        return type(error).__name__, str(error)


class Squares(threading.Thread):
    """A thread that overrides ``run``."""

    def __init__(self, results: list[int]) -> None:
        super().__init__()
        self._results = results

    def run(self) -> None:
        """Do some work."""
        self._results.append(square(3))


def threads() -> Any:
    """Start threads of every kind, one of which fails."""
    results: list[Any] = []
    done = threading.Event()
    before = threading.excepthook
    threading.excepthook = lambda args: results.append(repr(args.exc_value))
    try:
        for thread in (
            threading.Thread(target=lambda: results.append(square(2))),
            Squares(results),
            threading.Timer(0, lambda: results.append(square(4))),
            threading.Thread(target=fail),
        ):
            thread.start()
            thread.join(WAIT)
    finally:
        threading.excepthook = before
    _thread.start_new_thread(lambda: (results.append(square(5)), done.set()), ())
    done.wait(WAIT)
    cancelled = threading.Timer(WAIT, fail)
    cancelled.start()
    cancelled.cancel()
    cancelled.join(WAIT)
    rounds = threading.Semaphore(0)

    def again(left: int) -> None:
        square(left)
        rounds.release()
        if left:
            threading.Timer(0, again, [left - 1]).start()

    again(2)
    return results, [rounds.acquire(timeout=WAIT) for _ in range(3)]


def futures() -> Any:
    """Submit, map, cancel and be called back."""
    called: list[Any] = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        submitted = [pool.submit(square, n) for n in range(3)]
        failed = pool.submit(fail)
        for future in (*submitted, failed):
            future.add_done_callback(lambda done: called.append(repr(done.exception())))
        results = [future.result(WAIT) for future in submitted]
        mapped = [*pool.map(square, range(5), timeout=WAIT)]
        wrong = told(lambda: pool.submit())
        failed.exception(WAIT)
    lonely: concurrent.futures.Future[int] = concurrent.futures.Future()
    lonely.add_done_callback(lambda done: called.append(done.cancelled()))
    lonely.cancel()
    refused = told(pool.submit, square, 1)
    return results, mapped, told(failed.result), sorted(map(str, called)), wrong[0], refused


class Own(concurrent.futures.Executor):
    """A home-made executor."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run it on a thread of its own."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run).start()
        return future


async def in_loop() -> Any:
    """Use executors and queues of a loop."""
    loop = asyncio.get_running_loop()
    results: list[Any] = [
        await loop.run_in_executor(executor, square, 6) for executor in (None, Own())
    ]
    try:
        await loop.run_in_executor(Own(), fail)
    except LookupError as error:
        results.append(repr(error))
    for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
        items: Any = kind()

        async def consume(items: Any = items) -> list[int]:
            got = []
            for _ in range(4):
                got.append(square(await items.get()))
                items.task_done()
            return got

        consumer = asyncio.create_task(consume())
        for number in (3, 1, 2):
            items.put_nowait(number)
        await asyncio.sleep(0)
        await items.put(0)
        results.append(await asyncio.wait_for(consumer, WAIT))
        await asyncio.wait_for(items.join(), WAIT)
        with suppress(asyncio.QueueEmpty):
            items.get_nowait()
    return results


def loops() -> Any:
    """Run a loop."""
    return asyncio.run(in_loop())


class Echo(asyncio.Protocol):
    """Answers what it gets, pausing and going on; keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.over = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.said.append(data.decode())
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self.answer, data)

    def answer(self, data: bytes) -> None:
        """Answer with what fills every buffer."""
        self.transport.write(data * 4_000_000)
        self.transport.resume_reading()

    def resume_writing(self) -> None:
        self.said.append("resumed")

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.said.append(data.decode())
        self.over.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.said.append(repr(error))
        self.over.set()


def anonymous(side: int) -> ssl.SSLContext:
    """Return settings for TLS without certificates."""
    settings = ssl.SSLContext(side)
    settings.check_hostname, settings.verify_mode = False, ssl.CERT_NONE
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    settings.set_ciphers("aNULL:@SECLEVEL=0")
    return settings


async def in_connections() -> Any:
    """Use streams, over TLS too, datagrams, and pipes."""
    loop = asyncio.get_running_loop()
    made: list[Echo] = []

    def make() -> Echo:
        made.append(Echo())
        return made[-1]

    results: list[Any] = []
    for over_tls in (False, True):
        ours = {"ssl": anonymous(ssl.PROTOCOL_TLS_SERVER)} if over_tls else {}
        theirs = {"ssl": anonymous(ssl.PROTOCOL_TLS_CLIENT)} if over_tls else {}
        server = await loop.create_server(make, "127.0.0.1", 0, **ours)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, **theirs)
        for number in (b"1", b"2"):
            writer.write(number)
            results.append(set(await reader.readexactly(4_000_000)))
        writer.close()
        await asyncio.wait_for(made[-1].over.wait(), WAIT)
        results.append(made[-1].said)
        server.close()
    transport, protocol = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"3", transport.get_extra_info("sockname"))
    await asyncio.wait_for(protocol.over.wait(), WAIT)
    transport.close()
    read, write = os.pipe()
    pipe, end = await loop.connect_read_pipe(Echo, os.fdopen(read, "rb", 0))
    pipe.pause_reading()
    pipe.resume_reading()
    os.close(write)
    await asyncio.wait_for(end.over.wait(), WAIT)
    return [*results, protocol.said, end.said]


def connections() -> Any:
    """Run a loop for connections."""
    return asyncio.run(in_connections())


async def in_libraries() -> Any:
    """Use what the tables of what starts clean name, of libraries that are only pretended."""
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "pretended"))
    import aiocron
    import watchfiles
    from nats.aio.subscription import Subscription

    sys.path.pop(0)
    got: list[Any] = []
    done = asyncio.Event()

    def call() -> bool:
        got.append("round")
        if got.count("round") == 3:
            done.set()
        return not done.is_set()

    aiocron.Cron(call).start()
    await asyncio.wait_for(done.wait(), WAIT)
    subscription = Subscription("message", got.append)
    await asyncio.create_task(subscription._wait_for_msgs())
    await subscription._wait_for_msgs()
    await asyncio.create_task(watchfiles.arun_process(got.append))
    async for number in watchfiles.awatch():
        got.append(number)
    with TRACER.start_as_current_span("over"):
        over = asyncio.create_task(subscription.next_msg())
    return [*got, await over]


def chunks(number: int) -> Generator[int | str]:
    """Hold a span from one yield to the next, and what was attached by hand."""
    with TRACER.start_as_current_span("chunks"):
        try:
            sent = yield square(number)
            yield from (square(each) for each in range(sent or 0))
        except LookupError as error:
            yield str(error)
        token = attach(baggage.set_baggage("chunk", "value"))
        yield number
        detach(token)


def bare() -> Generator[int]:
    """Attach by hand, and leave it to whoever closes the generator."""
    attach(baggage.set_baggage("chunk", "value"))
    yield 1
    yield 2


async def stream() -> AsyncGenerator[int]:
    """Hold a span from one yield to the next."""
    with TRACER.start_as_current_span("stream"):
        for number in range(3):
            await asyncio.sleep(0)
            yield square(number)


async def in_streams() -> Any:
    """Read streams to their end, and leave one early."""
    got = [number async for number in stream()]
    left = stream()
    async for number in left:
        got.append(number)
        break
    await left.aclose()
    thrown = stream()
    got.append(await thrown.asend(None))
    with suppress(LookupError):
        await thrown.athrow(LookupError())
    return got


def generators() -> Any:
    """Exhaust, leave, close, send to, throw into and drop generators, here and elsewhere."""
    sent, thrown, left, dropped = chunks(1), chunks(2), chunks(3), bare()
    results: list[Any] = [[*chunks(0)], next(sent), sent.send(2), *sent]
    results += [next(thrown), thrown.throw(LookupError("of the program")), *thrown]
    results += [next(left), next(dropped), next(dropped)]
    del dropped
    elsewhere = threading.Thread(target=lambda: results.extend([*left]))
    elsewhere.start()
    elsewhere.join(WAIT)
    return results, asyncio.run(in_streams())


def libraries() -> Any:
    """Run a loop for libraries that run on, and a server in this thread."""
    answered: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answered.append(self.request.recv(1))
            threading.Thread(target=self.server.shutdown).start()

    with (
        socketserver.TCPServer(("127.0.0.1", 0), Handler) as server,
        socket.create_connection(server.server_address) as client,
    ):
        client.sendall(b"1")
        server.serve_forever(poll_interval=0.01)
    return asyncio.run(in_libraries()), answered


def schedulers() -> Any:
    """Run events, one of which fails and one that is cancelled."""
    results: list[Any] = []
    scheduler = sched.scheduler(delayfunc=lambda _: None)
    scheduler.enter(0, 1, lambda: results.append(square(7)))
    cancelled = scheduler.enter(0, 2, fail)
    scheduler.cancel(cancelled)
    wrong = told(scheduler.cancel, cancelled)

    def again(left: int) -> None:
        results.append(square(left))
        if left:
            scheduler.enter(0, 1, again, (left - 1,))

    scheduler.enter(0, 3, again, (2,))
    scheduler.enter(0, 4, fail)
    fields = [tuple(event)[1::3] for event in scheduler.queue]
    return told(scheduler.run), results, wrong[0], fields[0][0], len(scheduler.queue)


def callbacks() -> Any:
    """Have Tcl's loop call back: once, in rounds, and with what fails. It needs no display."""
    if importlib.util.find_spec("_tkinter") is None:
        return None
    import tkinter

    tcl: Any = tkinter.Tcl()
    got: list[Any] = []
    tcl.report_callback_exception = lambda *error: got.append(error[0].__name__)

    def again(left: int) -> None:
        got.append(square(left))
        if left:
            tcl.after(0, again, left - 1)

    tcl.after(0, again, 2)
    tcl.after_idle(fail)
    while len(got) < 4:
        tcl.update()
    return sorted(map(str, got)), told(tcl.after, "no time", square)[0]


class Boxes(queue.Queue):  # type: ignore[type-arg]
    """A queue of the program's own whose items are in a container of its own."""

    def _init(self, maxsize: int) -> None:
        self.boxes: list[Any] = []

    def _qsize(self) -> int:
        return len(self.boxes)

    def _put(self, item: Any) -> None:
        self.boxes.append([item])

    def _get(self) -> Any:
        return self.boxes.pop(0)[0]


def boxes() -> Any:
    """Put to a queue in which items lie already that were put in no context."""
    items = Boxes()
    token = attach(Context())
    for number in (3, 1):
        items.put(number)
    detach(token)
    items.put(2)
    return [square(items.get(timeout=WAIT)) for _ in range(3)], items.empty()


class Bag(queue.Queue):  # type: ignore[type-arg]
    """A queue of the program's own."""

    def _put(self, item: Any) -> None:
        super()._put((item,))

    def _get(self) -> Any:
        return super()._get()[0]


def queues() -> Any:
    """Put to and get from queues of all kinds."""
    results: list[Any] = []
    makers: list[Callable[[], Any]] = [
        queue.Queue,
        queue.LifoQueue,
        queue.PriorityQueue,
        lambda: queue.SimpleQueue(),
        Bag,
    ]
    for make in makers:
        items = make()
        got: list[Any] = []

        def consume(items: Any = items, got: list[Any] = got) -> None:
            for _ in range(4):
                got.append(square(items.get(timeout=WAIT)))
                if hasattr(items, "task_done"):
                    items.task_done()

        for number in (3, 1, 2):
            items.put(number)
        with nullcontext():
            consumer = threading.Thread(target=consume)
            consumer.start()
            items.put_nowait(0)
            consumer.join(WAIT)
        results.append((got, items.qsize(), items.empty(), told(items.get_nowait)[0]))
    results[0][0].sort()
    return [sorted(got[0]) for got in results], [got[1:] for got in results]


class Slotted:
    """An item without weak references."""

    __slots__ = ("name", "tries", "value")

    def __init__(self, name: str) -> None:
        self.name, self.tries, self.value = name, 0, object()


def returned() -> Any:
    """Put items back to the queue that they came from, and new ones in their place in memory."""
    items: Any = queue.SimpleQueue()
    items.put(Slotted("0"))
    got: list[Any] = []

    def consume() -> None:
        for number in range(4):
            item = items.get(timeout=WAIT)
            got.append((item.name, square(item.tries)))
            item.tries += 1
            if number % 2:
                del item
                item = Slotted(str(number))
            items.put(item)

    consumer = threading.Thread(target=consume)
    consumer.start()
    consumer.join(WAIT)
    return got, items.qsize()


def batches() -> Any:
    """Get several items of different spans before anything is done for them."""
    items: Any = queue.SimpleQueue()
    got: list[int] = []
    for number in (4, 5, 6):
        with TRACER.start_as_current_span("producer"):
            items.put(number)

    def consume() -> None:
        numbers = [items.get(block=False) for _ in range(3)]
        got.extend((square(sum(numbers)), *numbers))

    consumer = threading.Thread(target=consume)
    consumer.start()
    consumer.join(WAIT)
    return got


def logs() -> Any:
    """Log through a queue, and a listener's thread."""
    got: list[Any] = []

    class Keep(logging.Handler):
        def emit(self, record: Any) -> None:
            got.append(record.getMessage())

    items: Any = queue.Queue()
    listener = logging.handlers.QueueListener(items, Keep())
    listener.start()
    logger = logging.getLogger("of-the-program")
    logger.propagate = False
    handler = logging.handlers.QueueHandler(items)
    logger.addHandler(handler)
    logger.warning("some %s", "words")
    logger.removeHandler(handler)
    listener.stop()
    return got


def thread_pools() -> Any:
    """Use a ``ThreadPool``."""
    called: list[Any] = []
    with multiprocessing.pool.ThreadPool(2) as pool:
        results = [
            pool.apply(square, (8,)),
            pool.map(square, range(5)),
            [*pool.imap(square, range(3))],
            sorted(pool.imap_unordered(square, range(3))),
            told(pool.apply_async(fail, (), {}, called.append, lambda _: called.append("no")).get),
            pool.map_async(square, [], callback=called.append).get(WAIT),
        ]
        pool.close()
        pool.join()
    return results, called


def leave_in_child(items: Any, done: Any) -> None:
    """Be a child that consumes, and answers."""
    done.put([square(items.get()) for _ in range(3)])


def processes() -> Any:
    """Send items of all kinds of queues to processes."""
    results: list[Any] = []
    for make in (CONTEXT.Queue, CONTEXT.SimpleQueue, CONTEXT.JoinableQueue):
        items, done = make(), CONTEXT.SimpleQueue()
        child = CONTEXT.Process(target=leave_in_child, args=(items, done))
        child.start()
        for number in range(3):
            items.put(number)
        results.append(done.get())
        child.join(WAIT)
        results.append(child.exitcode)
        items.close()
    return results


def managers() -> Any:
    """Use the queues and the pool of a manager."""
    with CONTEXT.Manager() as manager:
        items, done = manager.Queue(), manager.JoinableQueue()
        child = CONTEXT.Process(target=leave_in_child, args=(items, done))
        child.start()
        for number in range(3):
            items.put(number)
        results = [done.get(timeout=WAIT), told(items.get_nowait)[0], done.task_done()]
        child.join(WAIT)
        kept = manager.dict(one=1)
        pool = manager.Pool(1)
        results += [pool.map(square, range(3)), kept.copy(), told(kept.pop, "two")[0]]
        pool.terminate()
    return results, child.exitcode


def process_pools() -> Any:
    """Use a ``Pool``, whose worker is replaced."""
    with CONTEXT.Pool(1, maxtasksperchild=3) as pool:
        return (
            pool.map(square, range(6), 2),
            pool.map_async(square, [], 1).get(WAIT),
            [*pool.imap(square, range(3))],
            pool.apply(square, (2,)),
            told(pool.apply, fail),
        )


def executors() -> Any:
    """Use a ``ProcessPoolExecutor``."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=CONTEXT) as executor:
        return (
            [*executor.map(square, range(4), chunksize=2, timeout=WAIT)],
            executor.submit(square, 3).result(WAIT),
            told(executor.submit(fail).result, WAIT),
        )


def interpreters() -> Any:
    """Use an ``InterpreterPoolExecutor``, where there is one."""
    kind: Any = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    if kind is None:
        return None
    with kind(1) as executor:
        return (
            [*executor.map(square, range(4), timeout=WAIT)],
            executor.submit(square, 3).result(WAIT),
            told(executor.submit(fail).result, WAIT),
        )


def interpreter_calls() -> Any:
    """Call in an interpreter of one's own, and put items to a queue, where there are such."""
    if sys.version_info < (3, 14):
        return None
    from concurrent import interpreters

    items, done = interpreters.create_queue(), interpreters.create_queue()
    interpreter = interpreters.create()
    results: list[Any] = [interpreter.call(math.factorial, 5)]
    for number in range(3):
        items.put([number])
    thread = interpreter.call_in_thread(pass_on, items, done)
    thread.join(WAIT)
    results += [done.get(timeout=WAIT) for _ in range(3)]
    failed = told(interpreter.call, math.factorial, -1)
    interpreter.close()
    return results, failed[0], told(items.get_nowait)[0]


def pass_on(items: Any, done: Any) -> None:
    """Be an interpreter that consumes, and answers."""
    for _ in range(3):
        done.put(items.get())


_CHILD = "import os, sys; sys.stdout.write(os.environ.get('MINE', ''))"


def commands() -> Any:
    """Run commands, one of which cannot be run."""
    environment = {**os.environ, "MINE": "kept"}
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    return (
        subprocess.run(command, env=environment, capture_output=True, timeout=WAIT).stdout,
        subprocess.run(command, capture_output=True, timeout=WAIT).returncode,
        told(subprocess.run, ["no such command"])[0],
    )


def signals() -> Any:
    """Handle signals, by a handler of the program's own and by that of before."""
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(square(number)))
    signal.raise_signal(signal.SIGUSR1)
    handler = signal.getsignal(signal.SIGUSR1)
    handler(2, None)  # type: ignore[operator, misc]  # it is callable
    signal.signal(signal.SIGUSR1, before)
    return got, before, handler == signal.getsignal(signal.SIGUSR1)


def spans() -> Any:
    """Start spans in every way, also in the context of one that ended long ago."""
    ended = TRACER.start_span("ended", start_time=1)
    ended.end(2)
    token = attach(trace.set_span_in_context(ended))
    span = TRACER.start_span("late", kind=trace.SpanKind.CLIENT)
    detach(token)
    with UNSAMPLED.start_as_current_span("not sampled") as unsampled:
        UNSAMPLED.start_span("in it").end(3)
    return span.name, span.kind, unsampled.is_recording()


async def _by_hand_in_a_loop() -> Any:
    """Wrap what is awaited and iterated over."""

    async def answer(number: int) -> int:
        return square(number)

    async def count() -> AsyncGenerator[int, int]:
        yield 1
        yield square(2)

    wrapped = wrap(answer)
    counted = [number async for number in wrap(count)()]
    return await wrapped(3), await capture().run(answer, 4), counted


def by_hand() -> Any:
    """Hand off by hand in every way."""
    handoff, items = capture(), queue.Queue[int]()
    results: list[Any] = []
    items.put(1)
    with clean():
        items.get()
    for one in (handoff, capture("link"), clean(), batch([handoff, capture("link"), clean()])):
        with one, handoff, one:
            results.append(square(5))
        results += [one.run(square, 6), one.wrap(square)(7), told(one.run, fail)]
        far = HandOff.from_headers(one.headers())
        results += [far.run(divmod, 7, 3), wrap(lambda: [*range(3)])()]

    def count() -> Generator[int, int, str]:
        results.append((yield square(9)))
        return "end"

    generator = handoff.wrap(count)()
    results += [next(generator), told(generator.send, 10)]
    results += [*handoff.run(count)]
    return results, asyncio.run(_by_hand_in_a_loop())


def mistakes() -> Any:
    """Make every mistake by hand that is no error, and of which there is a warning."""
    logging.disable()
    handoff, results = capture(), []
    for rubbish in (None, b"traceparent", {"traceparent": "rubbish"}, [("b3", "1")]):
        with HandOff.from_headers(rubbish):  # type: ignore[arg-type]
            results.append(square(8))
    thread = threading.Thread(target=handoff.__enter__)
    thread.start()
    thread.join(WAIT)
    handoff.__exit__(None, None, None)
    logging.disable(logging.NOTSET)
    return results


IN_PROCESS = (
    *(threads, futures, loops, schedulers, queues, returned, batches),
    *(logs, thread_pools, spans, by_hand),
)
ACROSS = {
    "_asyncio_transports": (connections,),
    "_by_hand": (by_hand, mistakes),
    "_clean_starts": (libraries, connections),
    "handoff": (*IN_PROCESS, connections, libraries, generators),
    "_executors": (executors,),
    "_generators": (generators,),
    "_interpreters": (interpreters,),
    "_interpreter_calls": (interpreter_calls,),
    "_managers": (managers,),
    "contents": (boxes,),
    "_signal": (signals,),
    "_tkinter": (callbacks,),
    "posted": (callbacks,),
    "_turns": (executors, process_pools, interpreters),
    "_pools": (process_pools, thread_pools),
    "trailers": (processes,),
    "wire_format": (processes,),
    "carrier": (processes, process_pools),
    "flush": (processes, process_pools),
    "environment": (commands,),
    "_subprocess": (commands,),
    "_process": (processes,),
    "_multiprocessing": (processes,),
    "after_fork": (processes,),
}
"""What concerns a module that deals with other processes."""


def run(
    parts: tuple[Callable[[], Any], ...], begin: Callable[[Any], None] | None = None
) -> dict[str, Any]:
    """Return what the parts return: in a span, with baggage, and where there is nothing.

    ``begin`` is told each part before that.
    """
    results = {}
    for part in parts:
        if begin is not None:
            begin(part)
        with TRACER.start_as_current_span("main"):
            token = attach(baggage.set_baggage("key", "value"))
            results[f"{part.__name__} in a span"] = part()
            detach(token)
        results[f"{part.__name__} in no context"] = part()
    return results
