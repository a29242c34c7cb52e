"""Programs that use the libraries that there are adapters for, and return what they get."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from everything import CONTEXT, WAIT, Own, fail, square, told
from opentelemetry import propagate

# eventlet cannot be imported beside trio and httpx2 otherwise (findings/eventlet_beside_trio.sh).
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

# kivy would take the arguments of the program and its log, and make files for its user.
for name in ("KIVY_NO_ARGS", "KIVY_NO_CONFIG", "KIVY_NO_FILELOG", "KIVY_NO_CONSOLELOG"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("KIVY_LOG_MODE", "PYTHON")


async def told_of(awaitable: Any) -> Any:
    """Return what is awaited, or what that raises."""
    try:
        return await awaitable
    except Exception as error:
        return type(error).__name__, str(error)


def connections() -> Any:
    """Have a connection of aiosqlite's call a function, and refuse a statement."""
    import aiosqlite

    async def use() -> Any:
        async with aiosqlite.connect(":memory:") as connection:
            await connection.create_function("square", 1, square)
            async with connection.execute("select square(3)") as cursor:
                row = await cursor.fetchone()
            return row, await told_of(connection.execute("nonsense"))

    return asyncio.run(use())


def worker_processes() -> Any:
    """Run functions in a worker process of anyio's, one of which fails."""
    import anyio
    import anyio.to_process

    async def use() -> Any:
        results: list[Any] = [await anyio.to_process.run_sync(square, 2)]
        try:
            await anyio.to_process.run_sync(square, None)
        except TypeError as error:
            results.append(str(error))
        return results

    return anyio.run(use)


def task_queues() -> Any:
    """Have tasks wait for each other at queues of tornado's."""
    from tornado.queues import LifoQueue, Queue

    async def use(kind: Any) -> Any:
        results: list[Any] = []
        there = kind(1)

        async def consume() -> None:
            async for number in there:
                results.append(square(number))
                there.task_done()

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        for number in range(3):
            await there.put(number)
        await there.join()
        consumer.cancel()
        await asyncio.wait([consumer])
        there = kind(1)
        there.put_nowait(4)
        waiting = there.put(5)
        results += [there.get_nowait(), there.get_nowait()]
        await waiting
        return results

    return [asyncio.run(use(kind)) for kind in (Queue, LifoQueue)]


def streams() -> Any:
    """Send items through streams of anyio, one of which keeps none."""
    import anyio

    async def use() -> Any:
        results: list[Any] = []
        for size in (0, 3):
            send, receive = anyio.create_memory_object_stream[int](size)

            async def consume(receive: Any = receive) -> None:
                async with receive:
                    async for number in receive:
                        results.append(square(number))

            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                for number in range(3):
                    await send.send(number)
                await send.aclose()
        send, receive = anyio.create_memory_object_stream[int](1)
        send.send_nowait(1)
        results.append(told(send.send_nowait, 2)[0])
        with anyio.move_on_after(0):
            await send.send(3)
        results.append(receive.receive_nowait())
        with anyio.move_on_after(0):
            await receive.receive()
        send.close()
        receive.close()
        return results

    return anyio.run(use)


def channels() -> Any:
    """Send items through channels of trio, and hand calls to its loop."""
    import trio

    async def use() -> Any:
        results: list[Any] = []
        for size in (0, 3):
            send, receive = trio.open_memory_channel[int](size)

            async def consume(receive: Any = receive) -> None:
                async for number in receive:
                    results.append(square(number))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume)
                for number in range(3):
                    await send.send(number)
                await send.aclose()
        token, called = trio.lowlevel.current_trio_token(), trio.Event()
        token.run_sync_soon(lambda: results.append(square(4)))
        token.run_sync_soon(called.set, idempotent=True)
        await called.wait()
        return results

    return trio.run(use)


def two_sides() -> Any:
    """Put on one side of a queue of janus, and get on the other."""
    import janus

    async def use() -> Any:
        items: Any = janus.Queue()
        put = asyncio.to_thread(lambda: [items.sync_q.put(number) for number in range(3)])
        putting = asyncio.create_task(put)
        results = []
        for _ in range(3):
            results.append(square(await items.async_q.get()))
            items.async_q.task_done()
        await putting
        await items.aclose()
        return results

    return asyncio.run(use())


def jobs() -> Any:
    """Have a scheduler run jobs, one of which fails."""
    from apscheduler.schedulers.background import BackgroundScheduler

    results: queue.Queue[Any] = queue.Queue()
    scheduler = BackgroundScheduler(timezone="UTC")
    logging.getLogger("apscheduler").disabled = True
    scheduler.start()
    scheduler.add_job(lambda: results.put(square(9)))
    first = results.get(timeout=WAIT)
    scheduler.add_job(fail)
    removed = scheduler.add_job(fail, "interval", hours=1)
    scheduler.remove_job(removed.id)
    scheduler.shutdown()
    return first, len(scheduler.get_jobs())


def deferreds() -> Any:
    """Have callbacks of Deferreds called."""
    from twisted.internet.defer import Deferred

    results: list[Any] = []
    for fire in (lambda one: one.callback(2), lambda one: one.errback(LookupError("theirs"))):
        one: Any = Deferred()
        one.addCallback(square)
        one.addErrback(lambda failure: results.append(failure.type.__name__))
        one.addBoth(results.append)
        fire(one)
    return results


def reactors() -> Any:
    """Have a reactor call functions, later and from a thread."""
    from twisted.internet.selectreactor import SelectReactor

    results: list[Any] = []
    reactor: Any = SelectReactor()
    reactor.callLater(0, lambda: results.append(square(2)))
    reactor.callLater(WAIT, fail).cancel()
    reactor.callLater(0.01, reactor.callFromThread, reactor.stop)
    reactor.run(installSignalHandlers=False)
    return results


def cooperative_tasks() -> Any:
    """Have a cooperator step iterators, one of which fails, and one of which is stopped."""
    from twisted.internet.task import Cooperator

    results: list[Any] = []
    scheduled: list[Any] = []
    cooperator = Cooperator(scheduler=scheduled.append)

    def steps(last: Any) -> Any:
        yield results.append(square(2))
        yield last()

    tasks = [cooperator.cooperate(steps(last)) for last in (int, fail, int)]
    done = [one.whenDone().addErrback(lambda failure: failure.type.__name__) for one in tasks]
    tasks[2].stop()
    while scheduled:
        scheduled.pop()()
    return results, [one.result if isinstance(one.result, str) else None for one in done]


def enqueued_jobs() -> Any:
    """Have a worker of arq's do jobs, one of which fails and one of which is retried."""
    import arq.connections
    import arq.worker
    import fakeredis
    from redis.asyncio.connection import ConnectionPool

    async def say_nothing(*_: object) -> None:
        """Do without ``INFO``, which a Redis in memory does not know."""

    arq.worker.log_redis_info = say_nothing
    logging.getLogger("arq").disabled = True
    server, results = fakeredis.FakeServer(), []

    def connected() -> Any:
        kind = fakeredis.FakeAsyncRedisConnection
        pool = ConnectionPool(connection_class=kind, server=server)
        return arq.connections.ArqRedis(connection_pool=pool)

    async def job(_: Any, number: int) -> int:
        results.append(square(number))
        return number

    async def retried(at_work: Any) -> None:
        results.append(at_work["job_try"])
        if at_work["job_try"] == 1:
            raise arq.Retry

    async def failing(_: Any) -> None:
        fail()

    async def use() -> Any:
        client = connected()
        sent = [
            await client.enqueue_job(*call) for call in (("job", 3), ("retried",), ("failing",))
        ]
        await client.aclose()
        client = connected()
        worker = arq.worker.Worker(
            [arq.func(one, name=one.__name__) for one in (job, retried, failing)],
            redis_pool=client,
            burst=True,
            poll_delay=0.01,
            handle_signals=False,
        )
        await worker.main()
        done = [await told_of(one.result(timeout=WAIT)) for one in sent]
        await client.aclose()
        return done

    return asyncio.run(use()), sorted(results)


def billiard_pools() -> Any:
    """Use a pool of billiard's, and one of its processes."""
    import billiard

    called: list[Any] = []
    ways = billiard.get_context("fork")
    pool = ways.Pool(1)
    results = [
        pool.apply(square, (2,)),
        pool.map(square, range(6), 2),
        [*pool.imap(square, range(3))],
        sorted(pool.imap_unordered(square, range(3), 2)),
        pool.apply_async(square, (3,), callback=called.append).get(WAIT),
        told(pool.apply, fail),
    ]
    pool.close()
    pool.join()
    answers = ways.SimpleQueue()
    child = ways.Process(target=_answer, args=(answers,))
    child.start()
    results += [answers.get(), child.join(WAIT), child.exitcode]
    return results, called


def _answer(answers: Any) -> None:
    answers.put(square(4))


def three_sides() -> Any:
    """Put to queues of culsans', and get from them, in threads and in tasks."""
    import culsans

    async def use(kind: Any) -> Any:
        items: Any = kind(2)
        putting = asyncio.create_task(
            asyncio.to_thread(lambda: [items.sync_q.put(number) for number in range(4)])
        )
        results = []
        for _ in range(4):
            results.append(square(await items.async_q.get()))
            items.async_q.task_done()
        await putting
        items.async_q.put_nowait(5)
        results.append(items.sync_q.get(timeout=WAIT))
        refused = told(items.sync_q.get_nowait)[0]
        items.shutdown()
        return sorted(results), refused, told(items.sync_q.put, 1)[0]

    kinds = (culsans.Queue, culsans.LifoQueue, culsans.PriorityQueue)
    return [asyncio.run(use(kind)) for kind in kinds]


def clusters() -> Any:
    """Have a cluster of dask's do tasks, one of which fails."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").disabled = True
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        return (
            client.submit(square, 3).result(WAIT),
            client.gather(client.map(square, range(4))),
            told(client.submit(fail).result, WAIT),
        )


def messages() -> Any:
    """Have a worker of dramatiq's handle messages, one of which is delayed and one fails once."""
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    logging.getLogger("dramatiq").disabled = True
    broker, results = StubBroker(), []
    broker.emit_after("process_boot")

    def handle(number: int) -> None:
        results.append(square(number))
        if results.count(9) == 1:
            fail()

    actor = dramatiq.actor(handle, broker=broker, max_retries=2, min_backoff=1)
    actor.send(2)
    actor.send_with_options(args=(3,), delay=1)
    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    broker.join("default", timeout=WAIT * 1000)
    worker.join()
    worker.stop()
    broker.close()
    return sorted(results)


def rows_of_django() -> Any:
    """Enqueue a task of Django's in a database that is not there, and have a worker run it."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="tests", INSTALLED_APPS=["django_tasks_db"])
        import django

        django.setup()
    from django_tasks_db import backend
    from django_tasks_db.management.commands.db_worker import Worker

    given: Any = backend.normalize_json({"args": (2,), "kwargs": {}})
    other = backend.normalize_json([1])

    class Row(SimpleNamespace):
        @property
        def task(self) -> Any:
            self.done.append(square(*self.args_kwargs["args"]))
            raise ImportError

        def set_failed(self, error: BaseException) -> None:
            self.done.append(type(error).__name__)

    row = Row(args_kwargs=given, done=[], id=1)
    logging.getLogger("django_tasks_db").disabled = True
    worker: Any = SimpleNamespace(running_task=False, _run_tasks=0)
    Worker.run_task(worker, row)
    return row.done, worker._run_tasks, given["args"], given["kwargs"], other


def eventlets() -> Any:
    """Use green threads of eventlet's, its pool of native ones, and its queues."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import eventlet
        import eventlet.queue
        import eventlet.tpool

    results: list[Any] = []
    results.append(eventlet.spawn(square, 2).wait())
    results.append(told(eventlet.spawn(fail).wait))
    done = eventlet.queue.Queue()
    eventlet.spawn_n(lambda: done.put(square(3)))
    eventlet.spawn_after(0.001, lambda: done.put(square(3)))
    results += [done.get(timeout=WAIT), done.get(timeout=WAIT)]
    results.append([*eventlet.GreenPool(2).imap(square, range(3))])
    results.append(eventlet.tpool.execute(square, 4))
    results.append(told(eventlet.tpool.execute, fail))
    for kind in ("LightQueue", "Queue", "LifoQueue", "PriorityQueue"):
        items = getattr(eventlet.queue, kind)(1)
        consumer = eventlet.spawn(lambda there: [square(there.get()) for _ in range(3)], items)
        for number in range(3):
            items.put(number)
        results.append(sorted(consumer.wait()))
        results.append(told(items.get_nowait)[0])
    eventlet.tpool.killall()
    return results


def delayed_calls() -> Any:
    """Submit to an executor of futurist's, for later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import futurist

    class Delayed(futurist.DelayedExecutorMixin, futurist.ThreadPoolExecutor):  # type: ignore[misc]
        """Threads that can wait."""

    with Delayed(1) as executor:
        later = executor.submit_after(WAIT, fail)
        cancelled = later.cancel()
        return (
            executor.submit_after(0.001, square, 3).result(WAIT),
            told(executor.submit_after(0.001, fail).result, WAIT),
            cancelled,
            executor.shutdown(cancel_futures=True),
        )


def greenlets() -> Any:
    """Use greenlets of gevent's, its pool of threads, and its queues."""
    import gevent
    import gevent.pool
    import gevent.queue
    import gevent.threadpool

    gevent.get_hub().exception_stream = None
    results: list[Any] = [
        gevent.spawn(square, 2).get(),
        told(gevent.spawn(fail).get),
        gevent.spawn_later(0.001, square, 3).get(),
        gevent.pool.Pool(2).map(square, range(3)),
    ]
    done = gevent.queue.Queue()
    gevent.spawn_raw(lambda: done.put(square(3)))
    results.append(done.get(timeout=WAIT))
    threads = gevent.threadpool.ThreadPool(1)
    results += [
        threads.spawn(square, 4).get(),
        told(threads.apply, fail),
        threads.map(square, range(3)),
    ]
    threads.kill()
    for kind in ("Queue", "LifoQueue", "PriorityQueue", "JoinableQueue", "SimpleQueue"):
        items = getattr(gevent.queue, kind)(1)
        consumer = gevent.spawn(lambda there: [square(there.get()) for _ in range(3)], items)
        for number in range(3):
            items.put(number)
        results.append(sorted(consumer.get()))
        results.append(told(items.get_nowait)[0])
    return results


def calls() -> Any:
    """Register callbacks with calls of gRPC's, on both sides."""
    import grpc

    called: queue.Queue[Any] = queue.Queue()

    def handle(request: bytes, call: Any) -> bytes:
        call.add_callback(lambda: called.put("server"))
        return request * 2

    def stream(request: bytes, call: Any) -> Any:
        yield request
        yield request

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(handle),
        "stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ready = grpc.channel_ready_future(channel)
        ready.add_done_callback(lambda _: called.put("ready"))
        ready.result(WAIT)
        future = channel.unary_unary("/tests/unary").future(b"1")
        future.add_done_callback(lambda done: called.put(done.result()))
        answers = [future.result(WAIT)]
        streaming = channel.unary_stream("/tests/stream")(b"2")
        streaming.add_done_callback(lambda _: called.put("streamed"))
        answers += streaming
        failed = channel.unary_unary("/tests/missing").future(b"1")
        code = failed.exception(WAIT).code().name
        heard = sorted(str(called.get(timeout=WAIT)) for _ in range(4))
    server.stop(None).wait(WAIT)
    return answers, code, heard


def huey_tasks() -> Any:
    """Have huey do tasks: one that fails once, and one after the other."""
    import huey

    logging.getLogger("huey").disabled = True
    tasks = huey.MemoryHuey(utc=True)
    results: list[int] = []

    @tasks.task(retries=1)
    def handle(number: int) -> int:
        results.append(square(number))
        if results.count(9) == 1:
            fail()
        return number

    handed = handle(2)
    handle(3)
    tasks.enqueue(handle.s(1).then(handle))
    while (task := tasks.dequeue()) is not None:
        tasks.execute(task)
    immediate = huey.MemoryHuey(immediate=True)
    return results, handed(), immediate.task()(square)(5)(blocking=True)


def records() -> Any:
    """Iterate over records of a consumer of kafka-python's, whose broker is a list."""
    import kafka

    log: list[Any] = []
    headers: dict[str, str] = {}
    propagate.inject(headers)
    sent = [(key, value.encode()) for key, value in headers.items()]
    for value, with_headers in (b"a", sent), (b"b", []), (b"c", [("traceparent", None)]):
        log.append(SimpleNamespace(value=value, headers=with_headers))
    consumer = kafka.KafkaConsumer.__new__(kafka.KafkaConsumer)
    consumer.config, consumer._closed, consumer._iterator = {}, False, None
    consumer._set_consumer_timeout, consumer._consumer_timeout = int, float("inf")
    consumer._message_generator_v2 = lambda: iter([log.pop(0)])
    got = []
    for _ in range(3):
        record = next(consumer)
        got.append((record.value, square(len(record.value))))
    refused = told(consumer.poll)[0]
    consumer._closed = True  # or it says good-bye to its broker
    return got, refused


def loky_pools() -> Any:
    """Use executors of loky's, and joblib over them."""
    import joblib
    import loky

    with loky.ProcessPoolExecutor(1) as executor:
        results = [
            executor.submit(square, 3).result(WAIT),
            [*executor.map(square, range(3))],
            told(executor.submit(fail).result, WAIT),
        ]
    with joblib.Parallel(2, backend="multiprocessing") as parallel:
        results.append(parallel(joblib.delayed(square)(number) for number in range(4)))
    return results


def attempts() -> Any:
    """Submit to executors of more-executors' that retry, and that hold back."""
    from more_executors import Executors

    tried: list[int] = []
    called: queue.Queue[Any] = queue.Queue()

    def fail_once() -> int:
        tried.append(len(tried))
        if len(tried) == 1:
            fail()
        return square(len(tried))

    results: list[Any] = []
    with Executors.thread_pool(max_workers=1).with_retry(max_attempts=2, sleep=0.001) as executor:
        results.append(executor.submit(fail_once).result(WAIT))
        results.append(told(executor.submit(fail).result, WAIT))
    with Executors.thread_pool(max_workers=2).with_throttle(1) as executor:
        go = threading.Event()
        first = executor.submit(go.wait, WAIT)
        second = executor.submit(square, 3)
        second.add_done_callback(lambda done: called.put(done.result()))
        third = executor.submit(square, 4).cancel()
        go.set()
        results += [first.result(WAIT), second.result(WAIT), third, called.get(timeout=WAIT)]
    return results


def dill_pools() -> Any:
    """Use a pool, a process and queues of multiprocess'."""
    import multiprocess

    ways = multiprocess.get_context("fork")
    with ways.Pool(1) as pool:
        results = [
            pool.apply(lambda number: number**2, (3,)),
            pool.map(square, range(4), 2),
            [*pool.imap(square, range(3))],
            told(pool.apply, fail),
        ]
    items, answers = ways.Queue(), ways.SimpleQueue()
    child = ways.Process(target=lambda: answers.put(square(items.get())))
    child.start()
    items.put(4)
    results += [answers.get(), child.join(WAIT), child.exitcode]
    with ways.Manager() as manager:
        shared = manager.Queue()
        shared.put(1)
        results.append(shared.get())
    return results


def scheduled_in_processes() -> Any:
    """Schedule functions in a pool of processes of pebble's."""
    import pebble

    with pebble.ProcessPool(1, context=CONTEXT) as pool:
        return (
            pool.schedule(square, args=(3,)).result(WAIT),
            [*pool.map(square, range(4), chunksize=2).result()],
            told(pool.schedule(fail).result, WAIT),
        )


def actions() -> Any:
    """Schedule actions of reactivex', one of which is cancelled, and observe a value."""
    from reactivex.operators import observe_on
    from reactivex.scheduler import EventLoopScheduler
    from reactivex.subject import Subject

    results: queue.Queue[Any] = queue.Queue()
    scheduler = EventLoopScheduler()
    values: Subject[int] = Subject()
    values.pipe(observe_on(scheduler)).subscribe(lambda value: results.put(square(value)))
    values.on_next(4)
    scheduler.schedule(lambda *_: results.put(square(2)))
    scheduler.schedule_relative(0.001, lambda *_: results.put(square(3)))
    scheduler.schedule_relative(WAIT, fail).dispose()
    got = sorted(results.get(timeout=WAIT) for _ in range(3))
    scheduler.dispose()
    return got


def rq_jobs() -> Any:
    """Have workers of rq's do jobs, in this process and in one of the job's own."""
    import fakeredis
    import rq

    connection = fakeredis.FakeStrictRedis()
    jobs = rq.Queue(connection=connection)
    done = [jobs.enqueue(square, number) for number in range(2)]
    failed = jobs.enqueue(fail)
    worker = rq.SimpleWorker([jobs], connection=connection)
    worker.work(burst=True, logging_level=logging.CRITICAL)
    jobs.enqueue(square, 4)
    forking = rq.Worker([jobs], connection=connection)
    forking.work(burst=True, logging_level=logging.CRITICAL)
    return [job.return_value() for job in done], failed.is_failed


def runs() -> Any:
    """Have jobs of schedule's run, one of which is cancelled and one fails."""
    import schedule

    results: list[Any] = []
    scheduler = schedule.Scheduler()
    scheduler.every().second.do(lambda: results.append(square(2)))
    once = scheduler.every().second.do(lambda: (results.append("once"), schedule.CancelJob)[1])
    scheduler.run_all(0)
    left = once in scheduler.jobs
    scheduler.every().second.do(fail)
    return told(scheduler.run_all, 0), results, left, told(scheduler.every().do, 1)[0]


def foreign_executors() -> Any:
    """Hand functions to executors in a loop of uvloop's."""
    import uvloop

    async def use() -> Any:
        loop = asyncio.get_running_loop()

        async def wrong() -> None:
            """Be what a loop does not hand to an executor."""

        results: list[Any] = [
            await loop.run_in_executor(executor, square, 6) for executor in (None, Own())
        ]
        results.append(await told_of(loop.run_in_executor(Own(), fail)))
        results.append(told(loop.run_in_executor, Own(), wrong)[0])
        return results

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(use())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def workers_of_tasks() -> Any:
    """Run functions in worker processes of trio-parallel's."""
    import trio
    import trio_parallel

    async def use() -> Any:
        kind = trio_parallel.WorkerType.FORK
        async with trio_parallel.open_worker_context(worker_type=kind) as workers:
            return [
                await workers.run_sync(square, 3),
                await told_of(workers.run_sync(fail)),
                await workers.run_sync(square, 4),
            ]

    return trio.run(use)


def apps() -> Any:
    """Post messages and callbacks to an app of textual's, and have its timers call back."""
    from textual.app import App

    async def use() -> Any:
        app: Any = App()
        results: list[Any] = []

        async def later() -> None:
            results.append(square(2))

        async with app.run_test() as pilot:
            app.call_later(lambda: results.append(square(3)))
            await pilot.pause()
            app.call_next(later)
            await pilot.pause()
            results.append(told(app.post_message, None)[0])
            done = asyncio.Event()
            app.call_later(app.set_timer, 0.001, done.set)
            await asyncio.wait_for(done.wait(), WAIT)
            rounds: list[Any] = []

            def each() -> None:
                rounds.append(square(4))
                if len(rounds) == 2:
                    done.set()

            done.clear()
            app.call_later(app.set_interval, 0.001, each)
            await asyncio.wait_for(done.wait(), WAIT)
        return results, rounds[:2]

    return asyncio.run(use())


def sent_events() -> Any:
    """Send events to a run of llama-index's, from outside and from a step."""
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    class Number(Event):
        number: int

    async def begin(ctx: Any, event: Any) -> None:
        ctx.send_event(Number(number=1))

    async def each(event: Any) -> Any:
        results.append(square(event.number))
        return StopEvent(result=results) if event.number == 3 else None

    # Steps are found by their annotations, which are no text that a module could resolve.
    begin.__annotations__ = {"ctx": Context, "event": StartEvent, "return": Number | None}
    each.__annotations__ = {"event": Number, "return": StopEvent | None}
    flow: Any = type("Flow", (Workflow,), {})
    for function in (begin, each):
        step(workflow=flow)(function)
    results: list[Any] = []

    async def use() -> Any:
        handler = flow(timeout=WAIT).run()
        await asyncio.sleep(0.01)
        for number in (2, 3):
            handler.ctx.send_event(Number(number=number))
            await asyncio.sleep(0.01)
        return await handler

    return asyncio.run(use())


def log_of_a_cluster() -> Any:
    """Produce to librdkafka's mock cluster, and consume by both of its clients."""
    import confluent_kafka

    settings = {"test.mock.num.brokers": 1, "log_level": 0, "log.connection.close": False}
    producer: Any = confluent_kafka.Producer(settings)
    delivered: list[Any] = []

    def deliver(error: Any, message: Any) -> None:
        delivered.append((error, square(len(message.value()))))

    for value in (b"1", b"22", b"333"):
        headers: dict[str, str] = {}
        propagate.inject(headers)
        given = [(name, text.encode()) for name, text in headers.items()]
        producer.produce("log", value, partition=0, headers=given, on_delivery=deliver)
    left = producer.flush(WAIT)
    (broker,) = producer.list_topics(timeout=WAIT).brokers.values()
    address = f"{broker.host}:{broker.port}"
    consumer: Any = confluent_kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "log", "log_level": 0}
    )
    consumer.assign([confluent_kafka.TopicPartition("log", 0, 0)])
    got = [(square(len(consumer.poll(WAIT)))) for _ in range(2)]
    got += [square(len(one)) for one in consumer.consume(1, WAIT)]
    got.append(consumer.poll(0))
    consumer.close()
    return delivered, left, got, told(producer.produce)[0], asyncio.run(read_log(address))


async def read_log(address: str) -> Any:
    """Read from a cluster with aiokafka."""
    import aiokafka

    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    partition = aiokafka.TopicPartition("log", 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    got = [square(len((await consumer.getone()).value)) for _ in range(2)]
    await consumer.seek_to_end(partition)
    got.append(await consumer.getmany(timeout_ms=0))
    await consumer.seek_to_beginning(partition)
    got.append(bool(await consumer.getmany(timeout_ms=WAIT * 1000)))
    await consumer.stop()
    return got


def pages() -> Any:
    """Call back for a response of cassandra-driver, which has two pages, and for one that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python has not all of the loops that it looks for
        from cassandra.cluster import ResponseFuture

    balancer = SimpleNamespace(make_query_plan=lambda *_: ())
    owner = SimpleNamespace(_default_load_balancing_policy=balancer)
    session = SimpleNamespace(row_factory=None, keyspace=None, cluster=owner)
    results: list[Any] = []
    response = ResponseFuture(session, None, None, None)
    response.add_callbacks(lambda rows, n: results.append(square(n)), fail, callback_args=(2,))
    for more in (b"more", None):
        response._paging_state = more
        response._set_final_result([])
    failing = ResponseFuture(session, None, None, None)
    failing.add_errback(lambda error: results.append(square(3)))
    failing._set_final_exception(KeyError())
    return results


def posted_to_a_loop() -> Any:
    """Post callbacks to a loop of pika's."""
    from pika.adapters.select_connection import IOLoop

    loop = IOLoop()
    results: list[Any] = [told(loop.call_later, -1, square)[0]]
    loop.call_later(0, lambda: results.append(square(2)))
    loop.add_callback_threadsafe(lambda: results.append(square(3)))
    loop.call_later(0.01, loop.stop)
    loop.start()
    loop.close()
    return results


def taskiq_tasks() -> Any:
    """Have a receiver of taskiq's do tasks, also one that is scheduled to repeat."""
    from taskiq import AsyncBroker, InMemoryBroker
    from taskiq.receiver.receiver import Receiver

    class Broker(AsyncBroker):
        async def kick(self, message: Any) -> None:
            messages.append(message.message)

        async def listen(self) -> Any:
            yield b""

    class Source:
        async def add_schedule(self, schedule: Any) -> None:
            results.append(schedule.args)

    messages: list[bytes] = []
    results: list[Any] = []

    async def job(number: int) -> None:
        results.append(square(number))

    async def use() -> Any:
        broker = Broker()
        task: Any = broker.register_task(job, task_name="job")
        await task.kiq(2)
        await task.schedule_by_cron(Source(), "* * * * *", 3)
        await Receiver(broker).callback(messages[0])
        here: Any = InMemoryBroker(await_inplace=True)
        await here.register_task(job, task_name="job").kiq(4)
        return results

    return asyncio.run(use())


def jobs_of_saq() -> Any:
    """Enqueue jobs of saq's to a queue in this process, and have a worker do them."""
    from saq import Queue, Worker

    class Local(Queue):  # type: ignore[misc]  # where it is not installed, it is anything
        waiting: list[Any]

        async def _enqueue(self, job: Any) -> Any:
            self.waiting.append(job)
            return job

        async def dequeue(self, **_: Any) -> Any:
            return self.waiting.pop(0) if self.waiting else None

        async def _update(self, job: Any, status: Any = None, **_: Any) -> None:
            job.status = status or job.status

        async def _finish(self, job: Any, status: Any, **given: Any) -> None:
            job.status, job.result = status, given.get("result")

    Local.__abstractmethods__ = frozenset()  # what is left is not used here

    async def use() -> Any:
        queue = Local("name", None, None)
        queue.waiting = []

        async def work(_: Any, number: int) -> Any:
            return square(number)

        async def failing(_: Any) -> None:
            fail()

        worker = Worker(queue, [("work", work), ("failing", failing)])
        done = [await queue.enqueue("work", number=number) for number in (2, 3)]
        done.append(await queue.enqueue("failing"))
        processed = [await worker.process() for _ in range(4)]
        return processed, [(job.status, job.result) for job in done]

    logging.disable(logging.CRITICAL)  # saq logs what a job raises
    try:
        return asyncio.run(use())
    finally:
        logging.disable(logging.NOTSET)


def tasks_of_mpi() -> Any:
    """Have a task of mpi4py's done in a thread, and another after it was pickled."""
    import pickle

    from mpi4py.futures import MPIPoolExecutor, ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        results: list[Any] = [threads.submit(square, 2).result(WAIT)]
        results.append(told(threads.submit(fail).result, WAIT))
        results.append(told(threads.submit))
    sent: list[Any] = []

    class Sending(MPIPoolExecutor):  # type: ignore[misc]
        _make_pool = staticmethod(lambda _: SimpleNamespace(push=sent.append))

    Sending().submit(square, 3)
    function, args, kwargs = pickle.loads(pickle.dumps(sent[0][1]))
    return [*results, function(*args, **kwargs)]


def tasks_of_executorlib() -> Any:
    """Submit tasks of executorlib's, and do what is sent in the place of its worker."""
    import cloudpickle
    from executorlib.standalone.interactive.backend import call_funct
    from executorlib.standalone.interactive.communication import SocketInterface
    from executorlib.task_scheduler.interactive import blockallocation

    class Here(SocketInterface):  # type: ignore[misc]
        def __init__(self) -> None:
            self._socket = SimpleNamespace(send=self.sent, close=int)
            self._spawner = SimpleNamespace(poll=bool)
            self._context = self._logger = None

        def sent(self, message: bytes) -> None:
            self.message = message

        def receive_dict(self) -> Any:
            received = cloudpickle.loads(self.message)
            received["fn"] = cloudpickle.loads(cloudpickle.dumps(received["fn"]))
            return {"result": call_funct(received, memory={"number": 5})}

    def done(function: Any, *args: Any) -> Any:
        tasks: queue.Queue[Any] = queue.Queue()
        scheduler = SimpleNamespace(_process_kwargs={"spawner": None}, _future_queue=tasks)
        submit = blockallocation.BlockAllocationTaskScheduler.submit
        future = submit(scheduler, function, *args)
        task = tasks.get()
        sent = blockallocation.execute_task_dict(
            task, future_obj=task.pop("future"), interface=Here()
        )
        return sent, sorted(task), told(future.result, 0)

    return done(square), done(square, 3), done(fail), told(done, None)


def tasks_of_parsl() -> Any:
    """Pack tasks of parsl's for its workers, and do what was packed."""
    import signal

    from parsl.executors.high_throughput import executor
    from parsl.serialize import unpack_apply_message

    def unpacked(function: Any) -> Any:
        message = executor.pack_apply_message(function, [3], {})
        function, args, kwargs = unpack_apply_message(message)
        return told(function, *args, **kwargs)

    before = signal.getsignal(signal.SIGTERM)
    try:
        return unpacked(square), unpacked(fail), told(unpacked, (one for one in ()).send)
    finally:
        signal.signal(signal.SIGTERM, before)


def batches_of_spark() -> Any:
    """Have batches of pyspark's called, which fail since there is no Java."""
    from pyspark.sql.utils import ForeachBatchFunction

    batch = ForeachBatchFunction(None, square)
    return [told(batch.call, SimpleNamespace(sparkSession=fail), number) for number in range(2)]


def remote_calls() -> Any:
    """Send a task of ray's and do it, with nothing in the place of the cluster."""
    import ray
    import ray._private.worker as workers
    from ray import cloudpickle
    from ray._common import signature

    sent: list[Any] = []
    present: Any = SimpleNamespace(
        connected=True,
        check_connected=int,
        mode=workers.WORKER_MODE,
        current_cluster_and_job=(1, 1),
        debugger_breakpoint=b"",
        should_capture_child_tasks_in_placement_group=False,
        function_actor_manager=SimpleNamespace(export=id),
        core_worker=SimpleNamespace(
            submit_task=lambda *args: [sent.append(args[2])], current_actor_is_asyncio=bool
        ),
    )
    plain, workers.global_worker = workers.global_worker, present
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    try:
        task: Any = ray.remote(scheduling_strategy="DEFAULT")(square)
        task.remote(2)
        results: list[Any] = [told(task.remote)]
        for flat in map(cloudpickle.dumps, sent):
            with workers._changeproctitle("begins", "ends"):
                args, kwargs = signature.recover_args(cloudpickle.loads(flat))
                results.append(square(*args, **kwargs))
    finally:
        workers.global_worker = plain
        del os.environ["RAY_ENABLE_AUTO_CONNECT"]
    return results


def requests_to_engines() -> Any:
    """Send a request of ipyparallel's, and have an engine's kernel do it, without a cluster."""
    from ipyparallel import Client
    from ipyparallel.engine.kernel import IPythonParallelKernel
    from ipyparallel.serialize import pack_apply_message

    sent: list[Any] = []
    session = SimpleNamespace(buffer_threshold=1024, item_threshold=64)
    client: Any = SimpleNamespace(
        _closed=False,
        session=session,
        _send=lambda *_, metadata, **__: sent.append(metadata),
        outstanding=set(),
    )
    results = [
        told(Client.send_apply_request, client, None, square, [2], {}, {"mine": 1})[0],
        told(Client.send_apply_request, client, None, None)[0],
    ]
    names: dict[str, Any] = {}
    kernel: Any = SimpleNamespace(
        shell=SimpleNamespace(user_ns=names, user_global_ns=names),
        session=session,
        get_parent=lambda _: {"metadata": sent[0]},
        log=logging.getLogger("kernel"),
    )
    buffers = pack_apply_message(square, [3], {})
    content, _ = IPythonParallelKernel.do_apply(kernel, {}, buffers, "id", {})
    return results, sent[0]["mine"], content


def rows() -> Any:
    """Have jobs of pgqueuer done, from tables in memory."""
    from pgqueuer import PgQueuer
    from pgqueuer.types import QueueExecutionMode

    queuer: Any = PgQueuer.in_memory()
    results: list[Any] = []

    async def job(one: Any) -> None:
        results.append(square(len(one.payload)))

    async def use() -> Any:
        queuer.entrypoint("job")(job)
        await queuer.qm.queries.enqueue(["job"] * 2, [b"22", b"333"], [0] * 2)
        await queuer.qm.run(mode=QueueExecutionMode.drain, batch_size=1)
        return sorted(results)

    return asyncio.run(use())


def streaq_tasks() -> Any:
    """Serialize tasks of streaq, as they are sent, and read them as a worker does."""
    from types import SimpleNamespace

    import streaq

    worker: Any = streaq.Worker()

    @worker.task
    def job(number: int) -> int:
        return square(number)

    async def use() -> Any:
        results: list[Any] = []
        for schedule in (None, "* * * * *"):
            task = job.enqueue(2)
            task.schedule = schedule
            sent = await task.serialize(0)
            read = await worker.deserialize(sent)
            results.append((read["a"], read["k"], job.fn(*read["a"])))
        return results, await told_of(worker.run_task(SimpleNamespace(task_id=None)))

    return asyncio.run(use())


def packages() -> Any:
    """Have a worker of django-q2's do tasks, one of which fails."""
    import multiprocessing

    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="key", Q_CLUSTER={"orm": "default"})
        import django

        django.setup()
    from django_q.signing import SignedPackage
    from django_q.worker import worker

    todo: Any = queue.Queue()
    done: Any = queue.Queue()
    for args in ((2,), (None,)):
        task = {"id": "1", "name": "task", "func": square, "args": args, "kwargs": {}}
        todo.put(SignedPackage.loads(SignedPackage.dumps(task)))
    todo.put("STOP")
    worker(todo, done, multiprocessing.Value("f", -1))
    return [(one["success"], one["args"]) for one in (done.get(), done.get())]


def loops_of_glib() -> Any:
    """Post callbacks to a loop of GLib's, one of which is called again."""
    from gi.repository import GLib

    loop, results = GLib.MainLoop(), list[Any]()

    def again(left: list[int]) -> bool:
        results.append(square(left.pop()))
        return bool(left) or (bool(GLib.timeout_add(5, loop.quit)) and False)

    GLib.idle_add(lambda number: results.append(square(number)), 4)
    GLib.timeout_add(1, again, [1, 2, 3])
    loop.run()
    return sorted(results), told(GLib.idle_add)[0], told(GLib.timeout_add, 1, "no function")[0]


def clocks() -> Any:
    """Have a clock of kivy's call a function and methods, once and again, and run a loop."""
    from kivy.base import EventLoop
    from kivy.clock import ClockBase

    clock, results = ClockBase(), list[Any]()
    clock._max_fps = 0

    class Widget:
        def method(self, _: float) -> bool:
            results.append(square(len(results)))
            return len(results) < 6

    widget = Widget()
    trigger = clock.create_trigger(widget.method)
    clock.schedule_once(lambda _: results.append(square(9)))
    clock.schedule_once(Widget().method)  # it is gone before the next frame but one
    trigger()
    clock.tick()
    trigger()
    later = clock.schedule_interval(widget.method, 0), clock.schedule_once(widget.method, 60)
    for _ in range(9):
        clock.tick()
    shown = later[1].get_callback() == widget.method
    clock.unschedule(widget.method)
    refused = told(clock.schedule_once, "no function")[0]
    EventLoop.idle()
    asyncio.run(EventLoop.async_idle())
    return results, shown, refused, [one.is_triggered for one in later]


def loops_of_qt() -> Any:
    """Hand off to a pool, a thread and a loop of Qt's."""
    from PySide6 import QtCore

    app = QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Runnable(QtCore.QRunnable):  # type: ignore[misc]  # where it is not installed: anything
        def run(self) -> None:
            results.put(square(2))

    class Thread(QtCore.QThread):  # type: ignore[misc]  # as above
        def run(self) -> None:
            results.put(square(3))

    class Receiver(QtCore.QObject):  # type: ignore[misc]  # as above
        def method(self) -> None:
            results.put(square(5))

    periodic, once = QtCore.QTimer(), QtCore.QTimer()
    once.setSingleShot(True)
    periodic.timeout.connect(lambda: results.put(square(7)) or periodic.stop())
    once.timeout.connect(lambda: results.put(square(8)) or app.quit())
    pool, thread, receiver = QtCore.QThreadPool(), Thread(), Receiver()
    runnable = Runnable()
    runnable.setAutoDelete(False)
    pool.start(runnable)
    pool.start(lambda: results.put(square(4)))
    pool.waitForDone()
    thread.start()
    thread.wait()
    results.put(pool.tryStart(runnable))
    pool.waitForDone()
    results.put(told(thread.start, 1, 2)[0])
    QtCore.QTimer.singleShot(0, receiver.method)
    QtCore.QTimer.singleShot(0, lambda: results.put(square(6)))
    periodic.start(0)
    once.start(1)
    app.exec()
    return sorted(map(str, (results.get() for _ in range(results.qsize()))))


def consumers() -> Any:
    """Dispatch messages that were sent over a layer of Django Channels, in memory."""
    from channels.layers import InMemoryChannelLayer
    from channels.utils import await_many_dispatch

    results: list[Any] = []

    class DoneError(Exception):
        """All messages are there."""

    async def dispatch(message: Any) -> None:
        results.append(square(message["number"]))
        if len(results) == 3:
            raise DoneError

    async def use() -> Any:
        layer: Any = InMemoryChannelLayer()
        waiting = asyncio.create_task(
            await_many_dispatch([lambda: layer.receive("channel")], dispatch)
        )
        for number in range(3):
            await layer.send("channel", {"type": "job", "number": number})
        return await told_of(asyncio.wait_for(waiting, WAIT)), results

    return asyncio.run(use())


def events() -> Any:
    """Make events of gradio, and have a queue that is not there process them."""
    from gradio.queueing import Event, Queue

    given: Any = [Event(name, SimpleNamespace(concurrency_id=3), None, None) for name in "ab"]
    for event in given:
        event.alive = False
    processing = Queue.process_events(SimpleNamespace(), given, False, 0, None)
    told_it = asyncio.run(told_of(processing))
    return [event.session_hash for event in given], square(len(given)), told_it


Part = Callable[[], Any]

PROGRAMS: dict[str, tuple[Part, ...]] = {
    "aiokafka": (log_of_a_cluster,),
    "aiosqlite": (connections,),
    "anyio": (streams, worker_processes),
    "apscheduler": (jobs,),
    "arq": (enqueued_jobs,),
    "billiard": (billiard_pools,),
    "cassandra_driver": (pages,),
    "confluent_kafka": (log_of_a_cluster,),
    "channels": (consumers,),
    "culsans": (three_sides,),
    "distributed": (clusters,),
    "django_q2": (packages,),
    "django_tasks_db": (rows_of_django,),
    "dramatiq": (messages,),
    "eventlet": (eventlets,),
    "executorlib": (tasks_of_executorlib,),
    "futurist": (delayed_calls,),
    "gevent": (greenlets,),
    "gradio": (events,),
    "grpcio": (calls,),
    "huey": (huey_tasks,),
    "ipyparallel": (requests_to_engines,),
    "janus": (two_sides,),
    "kafka_python": (records,),
    "kivy": (clocks,),
    "llama_index_workflows": (sent_events,),
    "loky": (loky_pools,),
    "more_executors": (attempts,),
    "mpi4py": (tasks_of_mpi,),
    "multiprocess": (dill_pools,),
    "parsl": (tasks_of_parsl,),
    "pgqueuer": (rows,),
    "pebble": (scheduled_in_processes,),
    "pika": (posted_to_a_loop,),
    "pygobject": (loops_of_glib,),
    "pyspark": (batches_of_spark,),
    "qt": (loops_of_qt,),
    "ray": (remote_calls,),
    "reactivex": (actions,),
    "rq": (rq_jobs,),
    "saq": (jobs_of_saq,),
    "schedule": (runs,),
    "streaq": (streaq_tasks,),
    "taskiq": (taskiq_tasks,),
    "textual": (apps,),
    "tornado": (task_queues,),
    "trio": (channels,),
    "trio_parallel": (workers_of_tasks,),
    "twisted": (deferreds, reactors, cooperative_tasks),
    "uvloop": (foreign_executors,),
}
"""What concerns an adapter."""

SHARED: dict[str, tuple[str, ...]] = {
    "_adapters": ("anyio",),
    "_core.awaiting": ("llama_index_workflows", "textual"),
    "_items.channels": ("anyio", "trio"),
    "_crossing.pickled_calls": ("anyio", "billiard", "trio_parallel"),
    "_items.records": ("kafka_python", "aiokafka", "confluent_kafka"),
    "_items.relays": ("eventlet", "tornado"),
    "_crossing.tasks": ("huey", "loky", "pebble", "rq"),
}
"""Modules that adapters share: who uses them."""

IMPORTED_ONCE = {
    "executorlib": "executorlib",
    "gradio": "gradio.queueing",
    "parsl": "parsl.executors.high_throughput.executor",
}
"""What takes seconds to be imported: that is done once, before the program runs in many forks."""
