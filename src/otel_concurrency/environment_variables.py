"""The environment variables that the library reads, one constant each.

Entry point of the group ``opentelemetry_environment_variables``: the parent process of
``opentelemetry-instrument`` loads this file and turns every constant into a flag
(``OTEL_PYTHON_CONCURRENCY_SCHED`` becomes ``--concurrency_sched``). It therefore imports nothing.
"""

OTEL_PYTHON_CONCURRENCY = "OTEL_PYTHON_CONCURRENCY"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY

A short name of ``OTEL_PYTHON_CONCURRENCY_POLICY``. Where both are set, the long one counts.

Its flag ``--concurrency`` exists for programs that have an option of that name, such as workers of
Celery. Without it ``argparse``, in Python 3.10, 3.11 and the first releases of 3.12 and 3.13, takes
that option for an ambiguous flag, and ``opentelemetry-instrument`` does not start the program.

Default: empty.
"""

OTEL_PYTHON_CONCURRENCY_POLICY = "OTEL_PYTHON_CONCURRENCY_POLICY"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_POLICY

The policy of every primitive that has none of its own: ``parent`` (spans of the worker are children
of the span that was current at the hand-off), ``link`` (they start a new trace, with a link to that
span) or ``off`` (not patched). Case does not matter.

Default: ``parent``.
"""

OTEL_PYTHON_CONCURRENCY_THREADING = "OTEL_PYTHON_CONCURRENCY_THREADING"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_THREADING

The policy for ``threading.Thread`` and its subclasses, ``threading.Timer`` and
``_thread.start_new_thread``.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_FUTURES = "OTEL_PYTHON_CONCURRENCY_FUTURES"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_FUTURES

The policy for ``ThreadPoolExecutor.submit`` and ``map`` and for ``Future.add_done_callback`` of
``concurrent.futures``.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_ASYNCIO = "OTEL_PYTHON_CONCURRENCY_ASYNCIO"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_ASYNCIO

The policy for ``asyncio.Queue``, ``LifoQueue`` and ``PriorityQueue``, and for
``loop.run_in_executor`` with an executor that ``OTEL_PYTHON_CONCURRENCY_FUTURES`` does not cover.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_SCHED = "OTEL_PYTHON_CONCURRENCY_SCHED"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_SCHED

The policy for ``sched.scheduler.enter`` and ``enterabs``.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_QUEUE = "OTEL_PYTHON_CONCURRENCY_QUEUE"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_QUEUE

The policy for the items of ``queue.Queue``, ``LifoQueue``, ``PriorityQueue`` and ``SimpleQueue``.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_MULTIPROCESSING = "OTEL_PYTHON_CONCURRENCY_MULTIPROCESSING"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_MULTIPROCESSING

The policy for ``multiprocessing.Process``, ``Pool``, ``Queue``, ``JoinableQueue`` and
``SimpleQueue``, and for ``ProcessPoolExecutor`` and ``InterpreterPoolExecutor``.

Default: the value of ``OTEL_PYTHON_CONCURRENCY_POLICY``.
"""

OTEL_PYTHON_CONCURRENCY_GENERATORS = "OTEL_PYTHON_CONCURRENCY_GENERATORS"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_GENERATORS

Whether a generator keeps what it has attached to itself where it yields, and its consumer keeps its
own context: ``parent`` is yes, ``off`` is no. There is no ``link``: nothing is handed off.

Default: ``off`` where ``OTEL_PYTHON_CONCURRENCY_POLICY`` is ``off``, ``parent`` otherwise.
"""

OTEL_PYTHON_CONCURRENCY_SUBPROCESS = "OTEL_PYTHON_CONCURRENCY_SUBPROCESS"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_SUBPROCESS

The policy for ``subprocess.Popen`` and everything that is built on it: the context goes into the
environment of the child, and the one that is found in the environment at start-up becomes the base
context of the process.

Default: ``off``, whatever ``OTEL_PYTHON_CONCURRENCY_POLICY`` says: the environment of a process is
inherited by all that it starts.
"""

OTEL_PYTHON_CONCURRENCY_FLUSH_TIMEOUT = "OTEL_PYTHON_CONCURRENCY_FLUSH_TIMEOUT"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_FLUSH_TIMEOUT

How many milliseconds a child process of ``multiprocessing`` may take at its end to export what it
has recorded. With ``0`` it exports nothing then.

Default: ``5000``.
"""

OTEL_PYTHON_CONCURRENCY_LINK_AFTER = "OTEL_PYTHON_CONCURRENCY_LINK_AFTER"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_LINK_AFTER

How many milliseconds after its end a span may still become the implicit parent of another span.
Later, that other span starts a new trace, with a link to the one that has ended. ``0`` sets no
limit.

Default: ``60000``.
"""

OTEL_PYTHON_CONCURRENCY_EXCLUDED = "OTEL_PYTHON_CONCURRENCY_EXCLUDED"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_EXCLUDED

What starts with a clean context, besides the infrastructure threads and tasks that the library
knows: ``module.qualname`` prefixes of thread classes, of callables, and of coroutine functions that
run as tasks, separated by commas. An entry covers the thing itself and everything below it
(``myapp.poller`` covers ``myapp.poller.Poller.run``); with a trailing ``*`` it is a plain prefix
(``myapp.poller.Poller._handle_*``).

Default: empty.
"""

OTEL_PYTHON_CONCURRENCY_METRICS = "OTEL_PYTHON_CONCURRENCY_METRICS"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_METRICS

Whether there are metrics: ``otel_concurrency.hand_offs`` counts hand-offs (in ``{hand_off}``),
``otel_concurrency.hand_off.wait`` measures the time from the capture of a context to its attachment
(in ``s``), and ``otel_concurrency.root_spans`` counts spans that start without a parent (in
``{span}``). ``true`` or ``false``.

Default: ``false``.
"""

OTEL_PYTHON_CONCURRENCY_REPORT_ORPHANS = "OTEL_PYTHON_CONCURRENCY_REPORT_ORPHANS"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_REPORT_ORPHANS

Whether a span that has probably lost its parent is logged as a warning: a root span in a thread, or
in a task of a thread pool, that was started inside a span. There is at most one warning an hour for
each line of code that starts such spans. ``true`` or ``false``.

Default: ``false``.
"""

OTEL_PYTHON_CONCURRENCY_ADAPTERS = "OTEL_PYTHON_CONCURRENCY_ADAPTERS"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_ADAPTERS

The libraries with workers or queues of their own that are patched when the program imports them,
comma-separated. ``*`` is all of them, and a ``-`` in front leaves one out (``-gevent``). Each goes
by the policies of the primitives that it resembles.

Default: ``*``.
"""

OTEL_PYTHON_CONCURRENCY_KEEP_OFFICIAL_THREADING = "OTEL_PYTHON_CONCURRENCY_KEEP_OFFICIAL_THREADING"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_KEEP_OFFICIAL_THREADING

Whether ``opentelemetry-instrumentation-threading`` stays as it is beside this library, which covers
the same threads, timers and pools: ``true`` or ``false``. By default it is set aside while this
library is on, in whichever order the two are switched on.

Default: ``false``.
"""

OTEL_PYTHON_CONCURRENCY_PURE_PYTHON = "OTEL_PYTHON_CONCURRENCY_PURE_PYTHON"
"""
.. envvar:: OTEL_PYTHON_CONCURRENCY_PURE_PYTHON

Whether the library runs in pure Python also where its compiled part is installed: ``true`` or
``false``, or ``1`` or ``0``. It is read when the library is imported, so it is no keyword of
``instrument()``.

Default: ``false``.
"""
