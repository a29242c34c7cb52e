"""The hot path, and what replaces functions: capture, attach, detach; patching and exact undo.

Knows OpenTelemetry's context API, and nothing else of the library.
"""
