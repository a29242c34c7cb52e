"""Runs the command as users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def environment(**variables):
    """Return ours without what would change how the command behaves, and with ``variables``.

    OpenTelemetry's instrumentor of FastAPI is switched off: it imports all of FastAPI into every
    program, which takes longer than all that is tested here.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "PYTHON")) and key not in ("FORCE_COLOR", "NO_COLOR")
    }
    given = {
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "80",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi",
    }
    return kept | given | variables


def command(*arguments, **variables):
    """Run the command with ``variables`` added to its environment."""
    return subprocess.run(
        [sys.executable, "-m", "otel_concurrency", *arguments],
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
