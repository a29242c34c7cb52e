"""Watches one process: its hooks tell, event by event, what happens there.

None of it is imported unless a program is watched: ``otel-concurrency trace``, or a test that uses
``otel_concurrency.testing``. What is made of the events is in ``_trace_report``.
"""
