"""Hand-offs that a program writes itself: capture, attach and detach where no hook can see it.

It works with the library switched off, and without the OpenTelemetry SDK. What it attaches it
attaches over whatever is current, by this library or by anybody: the innermost one stands.
"""
