"""Starts a child for each thing that the first argument names, and prints what it has seen.

The second argument is the start method. The main module imports nothing that the library is
concerned with, so a child imports that with its own code; with `api` as the third argument it
imports OpenTelemetry's API. With `plain` the library stays off. Printed is JSON: what the parent's
span was, and what each child said, or with which status it ended without a word.
"""

import multiprocessing
import sys
from _thread import start_new_thread

if sys.argv[3:] == ["api"]:
    import opentelemetry.trace  # noqa: F401


def seen():
    """Return the trace and the baggage that work is in which runs now."""
    from opentelemetry import baggage, trace

    span = trace.get_current_span().get_span_context()
    return [f"{span.trace_id:x}", baggage.get_baggage("tenant")]


def nothing(answers):
    """Return the names of the modules that are there, with nothing done."""
    answers.send(sorted(sys.modules))


def import_here(answers):
    """Import OpenTelemetry in the child's own flow."""
    answers.send(seen())


def start_thread(answers):
    """Have a thread import it."""
    import threading

    thread = threading.Thread(target=lambda: answers.send(seen()))
    thread.start()
    thread.join()


def start_looked_up_before(answers):
    """Start threads by the method that was there before anything was done."""
    import threading

    start = threading.Thread.start
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(seen()))
        start(thread)
        thread.join()
    answers.send(found[1])


def start_below_another_patch(answers):
    """Start a thread by a method that the program has replaced by its own."""
    import threading

    start = threading.Thread.start

    def own(self):
        start(self)

    threading.Thread.start = own
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(seen()))
        thread.start()
        thread.join()
    assert threading.Thread.start.__wrapped__ is own, threading.Thread.start
    answers.send([*found[0], *found[1]])


def start_raw_thread(answers):
    """Start a thread without `threading`."""
    import _thread

    done = _thread.allocate_lock()
    done.acquire()

    def work():
        answers.send(seen())
        done.release()

    _thread.start_new_thread(work, ())
    done.acquire()


def start_joinable_thread(answers):
    """Have a thread import it that was started without `threading`, and look here."""
    import _thread

    done = _thread.allocate_lock()
    done.acquire()

    def work():
        seen()
        done.release()

    if hasattr(_thread, "start_joinable_thread"):
        _thread.start_joinable_thread(work)
    else:
        _thread.start_new_thread(work, ())
    done.acquire()
    answers.send(seen())


def start_unseen_thread(answers):
    """Have a thread import it that was started by what was looked up before anything was done."""
    import _thread

    done = _thread.allocate_lock()
    done.acquire()

    def work():
        answers.send(seen())
        done.release()

    start_new_thread(work, ())
    done.acquire()


def replace_finders(answers):
    """Put only those in the list of finders that an interpreter begins with."""
    import threading

    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    found = []
    thread = threading.Thread(target=lambda: found.append(seen()))
    thread.start()
    thread.join()
    answers.send(found[0])


def import_past_all(answers):
    """Import OpenTelemetry by a finder in front of all others, and start a thread."""
    from importlib.machinery import PathFinder

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "opentelemetry":
                return PathFinder.find_spec(name, path, target)
            return None

    sys.meta_path.insert(0, Finder())
    seen()
    start_thread(answers)


def reload_first(answers):
    """Load a module again that is patched."""
    import importlib
    import weakref

    before = weakref.WeakValueDictionary
    importlib.reload(weakref)
    assert weakref.WeakValueDictionary is not before
    answers.send(seen())


def look_for_asyncio(answers):
    """Look for a module that is loaded when the library is switched on."""
    import importlib.util

    found = importlib.util.find_spec("asyncio")
    assert found.has_location
    assert found.cached
    assert found.loader.get_source("asyncio")
    answers.send(seen())


def without_the_library(answers):
    """Start a thread after everything of the library has gone."""
    import threading

    for name in list(sys.modules):
        if name.startswith("otel_concurrency"):
            del sys.modules[name]
    sys.modules["otel_concurrency"] = None
    found = []
    thread = threading.Thread(target=lambda: found.append("ran"))
    thread.start()
    thread.join()
    answers.send(found)


def put_item(answers):
    """Put an item in a queue, whose consumer has been started without a context."""
    import queue

    items = queue.SimpleQueue()
    items.put(None)
    from opentelemetry import context

    context.attach(context.Context())
    items.get()
    answers.send(seen())


def submit_to_pool(answers):
    """Submit to a pool."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answers.send(pool.submit(seen).result())


def submit_by_asyncio(answers):
    """Run in an executor of an event loop, from a task."""
    import asyncio

    async def main():
        return await asyncio.get_running_loop().run_in_executor(None, seen)

    answers.send(asyncio.run(main()))


def start_grandchild(answers):
    """Start a process that imports it."""
    child = multiprocessing.get_context("spawn").Process(target=import_here, args=(answers,))
    child.start()
    child.join()


def after_copied_variables(answers):
    """Import it in a copy of this flow's variables, and look in the flow itself."""
    import contextvars

    contextvars.copy_context().run(seen)
    answers.send(seen())


def in_copied_variables(answers):
    """Look in a copy of this flow's variables after it was used in the flow itself."""
    import contextvars

    variables = contextvars.copy_context()
    seen()
    answers.send(variables.run(seen))


def import_wrapt_first(answers):
    """Import a module that the library needs before any other."""
    import wrapt

    assert wrapt.ObjectProxy
    answers.send(seen())


def import_futures_first(answers):
    """Import a package whose modules are patched before any other."""
    from concurrent.futures import Future, ThreadPoolExecutor

    assert Future
    with ThreadPoolExecutor(1) as pool:
        answers.send(pool.submit(seen).result())


def import_asyncio_first(answers):
    """Import a module that is loaded when the library is switched on."""
    import asyncio
    import asyncio.queues

    assert asyncio.queues is sys.modules["asyncio.queues"]
    assert asyncio.__spec__.name == "asyncio"
    assert asyncio.__spec__.loader is asyncio.__loader__
    answers.send(seen())


def look_for_package(answers):
    """Look for OpenTelemetry before it is imported."""
    import importlib.util

    found = importlib.util.find_spec("opentelemetry")
    assert found.submodule_search_locations
    assert importlib.util.find_spec("opentelemetry_that_is_missing") is None
    answers.send(seen())


def switched_on_by_the_child(answers):
    """Switch threads off by the child's own call."""
    from otel_concurrency import ConcurrencyInstrumentor

    ConcurrencyInstrumentor().instrument(threading="off")
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(seen()))
    thread.start()
    thread.join()
    answers.send([*seen(), *found[0]])


def in_a_thread_by_hand(answers):
    """Hand off by hand."""
    import threading

    from otel_concurrency import capture

    handoff = capture()
    found = []
    thread = threading.Thread(target=lambda: found.append(handoff.run(seen)))
    thread.start()
    thread.join()
    answers.send(found[0])


def handle_signal(answers):
    """Handle a signal by a handler that was registered before anything was used."""
    import signal

    found = []
    signal.signal(signal.SIGINT, lambda *_: found.append(seen()))
    inside = seen()
    signal.raise_signal(signal.SIGINT)
    answers.send([*inside, *found[0], signal.getsignal(signal.SIGINT).__name__])


def handle_signal_by_raising(answers):
    """Have a signal arrive while the library is switched on, and raise in its handler."""
    import signal

    def handler(*_):
        raise TimeoutError

    class Finder:
        def find_spec(self, name, _path=None, _target=None):
            if name == "otel_concurrency._instrumentor":
                signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, handler)
    sys.meta_path.insert(0, Finder())
    try:
        import queue  # noqa: F401
    except TimeoutError:
        answers.send(seen())
    else:
        answers.send("nothing was raised")


def spans_at_the_end(answers):
    """Leave spans in a processor that exports at the end."""
    import tempfile

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    file = tempfile.NamedTemporaryFile("w", delete=False)  # noqa: SIM115
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(None) + "\n")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    trace.get_tracer("late").start_span("work").end()
    answers.send(file.name)


def answer_of(name, method):
    """Have a child do one thing; return what it says, or its status if that is not 0."""
    mp = multiprocessing.get_context(method)
    here, there = multiprocessing.Pipe(False)
    child = mp.Process(target=globals()[name], args=(there,))
    child.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        answer = "nothing"
    child.join()
    return f"status {child.exitcode}" if child.exitcode else answer


def main():
    """Start the children in a span with baggage, and print what they say."""
    import json

    from opentelemetry import baggage, context

    from otel_concurrency import ConcurrencyInstrumentor

    if sys.argv[3:] != ["plain"]:
        ConcurrencyInstrumentor().instrument()
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("late")
    with tracer.start_as_current_span("parent") as span:
        context.attach(baggage.set_baggage("tenant", "acme"))
        answers = {name: answer_of(name, sys.argv[2]) for name in sys.argv[1].split(",")}
    print(json.dumps({"trace": f"{span.get_span_context().trace_id:x}", "answers": answers}))


if __name__ == "__main__":
    main()
