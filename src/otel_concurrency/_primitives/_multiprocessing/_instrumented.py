"""What a child is sent, so that it is instrumented like its parent before its first task.

It is text for ``exec`` and plain values, and leaves nothing behind where it was run: a child in
which this library cannot be imported goes on without.
"""

from __future__ import annotations

from typing import Any

from otel_concurrency import _settings

_INSTRUMENT = """\
try:
    from otel_concurrency import _child
    _child.instrument(settings)
except Exception:
    pass
"""


class Instrumented:
    """Instruments the process that unpickles it, and is None there."""

    __slots__ = ("_settings",)

    def __init__(self, settings: _settings.Settings) -> None:
        self._settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_INSTRUMENT, {"settings": self._settings.as_keywords()})
