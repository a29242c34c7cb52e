"""What a process that was started by an instrumented one runs to become like it.

It stands outside the rest: no module imports it. The started process finds it by name, in a text
that it was sent, so that one that does not have the library goes on without (see ``_primitives``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_concurrency import _instrumentor


def instrument(settings: Mapping[str, Any]) -> None:
    """Instrument this process with the keywords in ``settings``, unless it is already.

    It is under ``opentelemetry-instrument``, or where the program does so when it is imported: what
    the program says of itself holds, now and later.
    """
    instrumentor = _instrumentor.ConcurrencyInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(skip_dep_check=True, **settings)
        _instrumentor.inherited = True
