"""Watches one process: its hooks report, event by event, what happens there.

It is imported only if a program is watched: by ``otel-concurrency trace``, or by a test that uses
``otel_concurrency.testing``. ``_trace_report`` evaluates the events.
"""
