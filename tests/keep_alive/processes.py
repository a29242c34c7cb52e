"""Starts a server in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from server import SERVERS

_HERE = Path(__file__).parent


def installed():
    """Return the names of the servers that are installed."""
    return [name for name, (_, modules) in SERVERS.items() if all(map(_is_installed, modules))]


def _is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of a package that is not there
        return False


@contextlib.contextmanager
def serving(name, library):
    """Serve in a process of its own meanwhile; yield the port.

    Whatever becomes of the requests, a server that has ended is what is wrong.
    """
    with subprocess.Popen(
        [sys.executable, str(_HERE / "server.py"), name, library],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            ended = process.poll()
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            assert ended is None, f"the server ended while it was asked, with status {ended}"
