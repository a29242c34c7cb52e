# ruff: noqa: E402 - gevent has to patch before anything is imported
"""Uses the primitives beside somebody else's patches, switched on and off in a given order.

Arguments: the others' name, what is switched on first, what is switched off first (``ours`` or
``theirs``). Prints a line of JSON: where the spans of work are that was handed off while both were
on, while one was, and while neither was, and what of the standard library has another value then.
"""

import json
import sys

LIBRARY, ON_FIRST, OFF_FIRST = sys.argv[1:]

if LIBRARY == "gevent":
    from gevent import monkey

    if ON_FIRST == "theirs":
        monkey.patch_all()

import _thread
import concurrent.futures
import concurrent.futures.thread
import os
import queue
import threading

from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency import ConcurrencyInstrumentor

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("beside")
OWNERS = (
    threading,
    threading.Thread,
    _thread,
    concurrent.futures._base.Future,
    concurrent.futures.thread,
    concurrent.futures.ThreadPoolExecutor,
    queue,
    queue.Queue,
)


def theirs_on():
    """Switch the others' patches on."""
    if LIBRARY == "sentry":
        import sentry_sdk
        from sentry_sdk.integrations.asyncio import AsyncioIntegration
        from sentry_sdk.integrations.threading import ThreadingIntegration

        sentry_sdk.init(
            integrations=[ThreadingIntegration(propagate_hub=True), AsyncioIntegration()],
            default_integrations=False,
        )
    elif LIBRARY == "ddtrace":
        os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "false"
        os.environ["DD_TRACE_ENABLED"] = "false"
        import ddtrace

        ddtrace.patch(futures=True, asyncio=True)
    elif LIBRARY == "gevent":
        monkey.patch_all()
    elif LIBRARY == "debugpy":
        import debugpy

        debugpy.listen(("127.0.0.1", 0))
    elif LIBRARY == "coverage":
        import coverage

        theirs_on.coverage = coverage.Coverage(data_file=None, concurrency="thread")
        theirs_on.coverage.start()


def theirs_off():
    """Switch them off, where they can be."""
    if LIBRARY == "coverage":
        theirs_on.coverage.stop()


def parents():
    """Return what kind of parent the work of each form has: right, none, or a wrong one."""
    found = {}

    def look(form, span):
        with TRACER.start_as_current_span(form) as own:
            parent = own.parent
        right = parent is not None and span is not None
        right = right and parent.span_id == span.get_span_context().span_id
        found[form] = "right" if right else "none" if parent is None else "wrong"

    def all_of_them(span, suffix=""):
        thread = threading.Thread(target=look, args=("thread" + suffix, span))
        thread.start()
        thread.join(20)
        timer = threading.Timer(0, look, ("timer" + suffix, span))
        timer.start()
        timer.join(20)
        done = threading.Event()
        _thread.start_new_thread(lambda: (look("raw thread" + suffix, span), done.set()), ())
        done.wait(20)
        pool.submit(look, "submit" + suffix, span).result(20)
        finished = concurrent.futures.Future()
        finished.add_done_callback(lambda _: look("done-callback" + suffix, span))
        pool.submit(finished.set_result, None).result(20)
        items.put(("item" + suffix, span))
        items.join()

    def consume():
        while (item := items.get()) is not None:
            look(*item)
            items.task_done()

    items = queue.Queue()
    consumer = threading.Thread(target=consume)
    consumer.start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with TRACER.start_as_current_span("main") as span:
            all_of_them(span)
        all_of_them(None, ", afterwards")
    items.put(None)
    consumer.join(20)
    return found


def snapshot():
    """Return the attributes of all that is patched."""
    return [dict(vars(owner)) for owner in OWNERS]


def changed(before):
    """Return the names of attributes that are not the same objects."""
    return sorted(
        f"{owner.__name__}.{name}"
        for owner, attributes in zip(OWNERS, before, strict=True)
        for name in {**attributes, **vars(owner)}
        if not name.startswith("_otel")
        and name not in ("_counter", "_limbo", "_active", "_dangling", "_shutdown_locks")
        and vars(owner).get(name) is not attributes.get(name)
    )


ours = ConcurrencyInstrumentor()
switches = {"ours": (ours.instrument, ours.uninstrument), "theirs": (theirs_on, theirs_off)}
second_on = "ours" if ON_FIRST == "theirs" else "theirs"
second_off = "ours" if OFF_FIRST == "theirs" else "theirs"

switches[ON_FIRST][0]()
before = snapshot()
switches[second_on][0]()
both = parents()
switches[OFF_FIRST][1]()
one = parents()
restored = changed(before) if second_on == OFF_FIRST else []
switches[second_off][1]()
neither = parents()
ours.instrument()
again = parents()
ours.uninstrument()
print(json.dumps({"both": both, "one": one, "neither": neither, "again": again, "left": restored}))
sys.stdout.flush()
os._exit(0)  # theirs may have threads that do not end
