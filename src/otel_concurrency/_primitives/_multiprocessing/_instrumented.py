"""An object that is pickled to a child process to instrument it like its parent.

The child runs it before its first task, and is instrumented when that needs it (see ``_child``).
The pickle contains only text for ``exec`` and plain values. So a child in which this library cannot
be imported runs on without it.
"""

from __future__ import annotations

from typing import Any

from otel_concurrency import _settings
from otel_concurrency._core import imports

_INSTRUMENT = """\
try:
    from otel_concurrency import _child
    _child.stand_by(settings, patched)
except Exception:
    pass
"""


class Instrumented:
    """Instruments the process that unpickles it; there it becomes None."""

    __slots__ = ("_settings",)

    def __init__(self, settings: _settings.Settings) -> None:
        self._settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        names = {"settings": self._settings.as_keywords(), "patched": imports.awaited()}
        return exec, (_INSTRUMENT, names)
