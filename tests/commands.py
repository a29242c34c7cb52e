"""Runs the command as users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def environment(**variables):
    """Return ours without what would change how the command behaves, and with ``variables``."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "PYTHON")) and key not in ("FORCE_COLOR", "NO_COLOR")
    }
    return kept | {"PYTHONIOENCODING": "utf-8", "COLUMNS": "80"} | variables


def command(*arguments, **variables):
    """Run the command with ``variables`` added to its environment."""
    return subprocess.run(
        [sys.executable, "-m", "otel_concurrency", *arguments],
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
