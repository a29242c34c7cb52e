"""The hot path (capture, attach, detach), and replacing functions with exact undo.

This package knows OpenTelemetry's context API. It imports no other package of the library, but for
the names of the environment variables.
"""
