"""These tests are of programs that are configured by a file, and need what reads it."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("opentelemetry.configuration") is None:  # as beside the oldest versions of the API
    collect_ignore_glob = ["test_*.py"]
