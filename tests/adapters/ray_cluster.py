"""What the tests of ray share: the environment of a cluster, and where its files are."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # otherwise it writes a token into the user's home
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}


@contextlib.contextmanager
def directory() -> Iterator[str]:
    """Return a folder whose name is short: the path of a socket is at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ray") as path:
        yield os.path.realpath(path)
