"""Makes hand-offs visible: what is observed in a program, and what it says about the program.

``observer`` watches one process and tells, event by event, what happens there; ``analysis`` makes
a report of the events of all processes; ``model`` is that report. None of it is imported unless
somebody looks: ``otel-concurrency trace``, or a test that uses ``otel_concurrency.testing``.
"""
