"""What a program does at bad moments comes out as it does without the library."""

from __future__ import annotations

import queue
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as context_api

from otel_concurrency import ConcurrencyInstrumentor

WAIT = 60
ROUNDS = 20


def work_of_every_kind(rounds):
    """Return what comes back of work in a context, which is handed off again and again."""
    context_api.attach(context_api.set_value("key", "value"))
    results, items = [], queue.Queue()
    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            results.append(pool.submit(divmod, number, 3).result(WAIT))
            items.put(number)
            thread = threading.Thread(target=lambda: results.append(items.get(timeout=WAIT)))
            thread.start()
            thread.join(WAIT)
            timer = threading.Timer(0, results.append, ("timer",))
            timer.start()
            timer.join(WAIT)
    return results


def test_switching_from_eight_threads_while_work_flows():
    """Whoever switches the library on and off meanwhile, no result is lost or another."""
    over, outcomes = threading.Event(), []

    def switch():
        instrumentor = ConcurrencyInstrumentor()
        while not over.is_set():
            instrumentor.instrument()
            instrumentor.uninstrument()

    switching = [threading.Thread(target=switch) for _ in range(8)]
    working = [
        threading.Thread(target=lambda: outcomes.append(work_of_every_kind(ROUNDS)))
        for _ in range(4)
    ]
    for thread in (*switching, *working):
        thread.start()
    for thread in working:
        thread.join(WAIT)
    over.set()
    for thread in switching:
        thread.join(WAIT)
    ConcurrencyInstrumentor().uninstrument()
    expected = [
        result for number in range(ROUNDS) for result in (divmod(number, 3), number, "timer")
    ]
    assert outcomes == [expected] * 4


PROGRAMS = {
    "the recursion limit": """
        import queue, sys, threading
        from concurrent.futures import Future, ThreadPoolExecutor

        def dive(depth):
            try:
                return dive(depth + 1)
            except RecursionError:
                items = queue.Queue()
                for step in (lambda: items.put(1), lambda: Future().add_done_callback(print)):
                    try:
                        step()
                    except RecursionError:
                        pass
                return depth > 10
        print(dive(0))
        with ThreadPoolExecutor(1) as pool:
            print(pool.submit(dive, 0).result(20), pool.submit(divmod, 7, 2).result(20))
    """,
    "no memory": """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from otel_concurrency._core import compiled, handoff

        def fail(*args):
            raise MemoryError
        handoff.attach = handoff.get_current = fail
        compiled.bind(vars(handoff))
        for seam in handoff.seams.values():
            seam.capture = fail
        results = []
        thread = threading.Thread(target=results.append, args=(1,))
        thread.start()
        thread.join(20)
        with ThreadPoolExecutor(1) as pool:
            print(results, pool.submit(divmod, 7, 2).result(20))
    """,
    "the interpreter's end, with work pending": """
        import atexit, threading, time
        from concurrent.futures import ThreadPoolExecutor

        pool, done = ThreadPoolExecutor(1), threading.Event()
        for number in range(3):
            pool.submit(lambda number=number: (time.sleep(0.05), print(number, flush=True)))
        pool.submit(done.set)
        threading.Thread(target=lambda: print("thread", done.wait(20), flush=True)).start()
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        atexit.register(print, "left")
    """,
    "a signal's handler that hands work off": """
        import queue, os, signal, threading
        from concurrent.futures import ThreadPoolExecutor

        pool, results = ThreadPoolExecutor(1), []
        def handle(*_):
            results.append(pool.submit(divmod, 7, 2))
        signal.signal(signal.SIGUSR1, handle)
        items = queue.SimpleQueue()
        for number in range(200):
            os.kill(os.getpid(), signal.SIGUSR1)
            items.put(number)
            thread = threading.Thread(target=items.get)
            thread.start()
            thread.join(20)
        print(len(results), {future.result(20) for future in results})
    """,
    "a fork inside work": """
        import os, threading
        from concurrent.futures import ThreadPoolExecutor

        def fork():
            child = os.fork()
            if not child:
                thread = threading.Thread(target=lambda: None)
                thread.start()
                thread.join(20)
                with ThreadPoolExecutor(1) as pool:
                    os._exit(pool.submit(divmod, 7, 2).result(20)[0])
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with ThreadPoolExecutor(1) as pool:
            print(fork(), pool.submit(fork).result(20))
        threading.Timer(0, lambda: print(fork())).start()
    """,
}

START = """
import sys
from opentelemetry import context
if sys.argv[1] == "on":
    from otel_concurrency import ConcurrencyInstrumentor
    ConcurrencyInstrumentor().instrument()
context.attach(context.set_value("key", "value"))
"""


@pytest.mark.parametrize("moment", PROGRAMS)
def test_a_program_does_what_it_does(moment):
    """It prints what it prints without the library, and ends as it does."""
    program = START + textwrap.dedent(PROGRAMS[moment])
    plain, ours = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, switch],
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        for switch in ("off", "on")
    )
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout
    assert (ours.returncode, ours.stdout) == (0, plain.stdout), ours.stderr
    assert "Traceback" not in plain.stderr
