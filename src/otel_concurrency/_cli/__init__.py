"""The command ``otel-concurrency``: one file a verb.

The base package installs neither the SDK nor rich; a verb imports them inside its functions, and
the command says what to install where they are missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from otel_concurrency.version import __version__

PROGRAM = "otel-concurrency"

_EXTRA = {"rich": "rich", "opentelemetry.sdk.trace": "opentelemetry-sdk"}
"""The modules that the extra ``cli`` brings, with the names that they are installed by."""


class CommandError(Exception):
    """What keeps a verb from its end, in words for its user, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of the process); return the exit status.

    0 where the verb did what it promises, 1 where it could not, 2 where it was called wrongly or
    the extra ``cli`` is not installed, 130 after Ctrl-C.
    """
    try:
        return _run(arguments)
    except CommandError as error:
        say(str(error))
        return error.status
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from otel_concurrency._cli import demo, status, trace

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Shows what OpenTelemetry context propagation does for concurrent Python.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in (trace, status, demo):
        verb.add_to(verbs)
    parsed = parser.parse_args(arguments)

    missing = [name for module, name in _EXTRA.items() if not _is_installed(module)]
    if missing:
        say(
            f"this command needs {' and '.join(missing)}. Install the extra 'cli': "
            f"python -m pip install '{PROGRAM}[cli]'"
        )
        return 2
    exit_status: int = parsed.run(parsed)
    return exit_status


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def say(message: str) -> None:
    """Tell the user something that is not the verb's product."""
    print(f"{PROGRAM}: {message}", file=sys.stderr)
