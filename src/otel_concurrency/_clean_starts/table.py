"""The threads and processes that start with an empty context, as data only.

The first request that needs a library's worker or heartbeat starts that thread, and the thread
outlives the request. In the request's context it would keep the span alive for ever, and make the
work of every later request a child of it. Such threads look the same as the user's threads, so they
are listed here. The list is kept apart from the code that matches, which need not change when a
library does.

How an entry is written
    The dotted name of a thread class, or of the function that the thread runs: ``__module__`` and
    ``__qualname__`` at run time. That is not the import path, and has ``<locals>`` for a closure. A
    bound method is named by the class that defines it, a partial by the function that it wraps, a
    callable instance by its type, and a timer by the function that it calls. An entry also matches
    every name that continues it after a dot. So a private class or module covers everything that it
    starts, even if the next release renames it. A star at the end makes it a plain string prefix.

What does not belong here
    A thread that makes one call while its caller waits for it, even if a library wrote it: that
    call is part of the request. Nor a class from which users derive one-shot work, nor a module
    whose functions users pass to a thread themselves.

How an entry is verified
    In the source of the versions that its comment names: find the statement that starts the thread,
    and the class that defines the function that it runs, which a subclass may override. An entry
    for a name that only some of these versions have stays: it costs nothing. The tests resolve
    every entry of the standard library, of OpenTelemetry and of the libraries in the ``dev`` extra,
    and start such threads for real. ``python tests/scan_threads`` lists the threads of installed
    libraries that no entry matches.

The entries of libraries are in two separate files, in alphabetical order.
"""

from __future__ import annotations

from typing import Final

from otel_concurrency._clean_starts import libraries_a_to_k, libraries_l_to_z

TABLE: Final[tuple[str, ...]] = (
    # Standard library, CPython 3.10 to 3.15. Of asyncio only what lives for ever or belongs to the
    # loop itself: Thread(target=asyncio.run) and to_thread are the caller's own work.
    "asyncio.base_events.BaseEventLoop._do_shutdown",
    "asyncio.base_events.BaseEventLoop.run_forever",
    "asyncio.unix_events.ThreadedChildWatcher",  # to 3.13
    "asyncio.unix_events._ThreadedChildWatcher",  # from 3.14
    "asyncio.windows_events.ProactorEventLoop.run_forever",  # to 3.12
    "concurrent.futures.process._ExecutorManagerThread",
    "concurrent.futures.process._process_worker",  # what its processes run
    "concurrent.futures.thread._worker",
    "logging.config.listen.<locals>.Server",
    "logging.handlers.QueueListener._monitor",
    "multiprocessing.managers.BaseManager._run_server",  # what its process runs
    "multiprocessing.managers.Server",
    "multiprocessing.pool.Pool._handle_*",
    "multiprocessing.pool.worker",  # what its processes run, and a ThreadPool's threads
    "multiprocessing.queues.Queue._feed",
    "multiprocessing.resource_sharer._ResourceSharer",
    "pdb._PdbServer._start_signal_listener",  # from 3.14
    "pydoc._start_server.<locals>.ServerThread",
    "socketserver.BaseServer.serve_forever",
    "socketserver.ThreadingMixIn.process_request_thread",
    "subprocess.Popen._readerthread",  # Windows
    "subprocess.Popen._writerthread",  # Windows, from 3.14
    # opentelemetry-sdk 1.20.0, 1.30.0, 1.35.0, 1.45.2: every thread that it starts. The batch
    # processors' loop has moved between its modules, so it is the package that is named.
    "opentelemetry.sdk",
    *libraries_a_to_k.ENTRIES,
    *libraries_l_to_z.ENTRIES,
)
