"""Process boundaries: ``multiprocessing``, ``ProcessPoolExecutor``, ``InterpreterPoolExecutor``.

A context crosses as headers (see ``otel_concurrency._crossing.carrier``). There is one file for
each way across: ``_process`` (every process that is started), ``_executors``, ``_pools`` and
``_queues`` (these two append headers to what they send, see ``_crossing.trailers``), and
``_interpreters``.
"""
