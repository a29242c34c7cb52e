"""Hand-offs that a program writes itself, in places that this library's hooks cannot see.

It works with the library switched off, and without the OpenTelemetry SDK. A context attached here
replaces the current one until it is detached, whether this library or other code attached that.
"""
