"""ipyparallel: calls of functions in engines, with headers in the metadata of the request.

The setting MULTIPROCESSING covers them, since engines are processes, on this host or another. An
engine without this library never looks at the headers. A request that is sent again keeps them.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("9.2.0", "9.2.0")

_HEADERS = "otel_concurrency"
"""The key in the metadata."""

_PLACE = 2
"""The place of the metadata among the arguments that follow the function."""


def _client_layers(client: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(client.Client, "send_apply_request", lambda raw: _send(raw, seam))]


def _engine_layers(kernel: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(kernel.IPythonParallelKernel, "do_apply", lambda raw: _do_apply(raw, seam))]


MODULES = {
    "multiprocessing": {
        "ipyparallel.client.client": _client_layers,
        "ipyparallel.engine.kernel": _engine_layers,
    }
}


def _send(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def send_apply_request(self: Any, socket: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            headers = carrier.capture(seam, f) if seam.active else None
            given = args[_PLACE] if len(args) > _PLACE else kwargs.get("metadata")
            if headers is not None and isinstance(given, dict | None):
                metadata: Any = {_HEADERS: headers}  # a copy: the program may own what is given
                metadata.update(given or {})
                if len(args) > _PLACE:
                    args = args[:_PLACE] + (metadata,) + args[_PLACE + 1 :]  # noqa: RUF005
                else:
                    kwargs = {**kwargs, "metadata": metadata}
        except Exception as error:
            handoff.report_fault("apply", error)
        return original(self, socket, f, *args, **kwargs)

    return send_apply_request


def _do_apply(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def do_apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        headers = None
        try:
            if seam.active:
                headers = self.get_parent("shell").get("metadata", {}).get(_HEADERS)
        except Exception as error:
            handoff.report_fault("extract", error)
        return tasks.run_in(headers, seam, original, self, *args, **kwargs)

    return do_apply
