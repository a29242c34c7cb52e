"""A snapshot of a process: what is patched there, by which setting, and what is not.

It is plain data, which ``otel-concurrency status`` prints. A program writes its snapshot when it
ends, when everything that it imports has been imported.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from opentelemetry import trace

from otel_concurrency import _adapters, _configuration, _instrumentor, _primitives, _settings
from otel_concurrency._core import compiled, imports
from otel_concurrency._core.patching import Layer, wrap_builtin
from otel_concurrency._status import exporters, neighbours, otlp

_logger = logging.getLogger(__name__)

_DISTRIBUTIONS = (
    "otel-concurrency",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "wrapt",
)


def state_of_process() -> dict[str, Any]:
    """Return what is patched in this process, and what is not, as values that JSON can hold.

    Modules that were imported past the import hooks are patched first.
    """
    imports.look_again()
    return state_as_it_is()


def state_as_it_is(pause: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Return the same as :func:`state_of_process`, without changing anything in this process.

    ``pause`` is called many times on the way, to let other threads run.
    """
    settings = _settings.in_force
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "versions": {name: _version(name) for name in _pausing(_DISTRIBUTIONS, pause)},
        "compiled": compiled.functions is not None,
        "why_not_compiled": compiled.reason,
        "on": settings is not None,
        "disabled_by_file": _instrumentor.disabled_by_file,
        "inherited": _instrumentor.inherited,
        "provider": _provider(),
        "exporters": exporters.found(),
        "export": [*otlp.mismatches()],
        "primitives": [
            state_of_primitive(name, settings) for name in _pausing(_primitives.NAMES, pause)
        ],
        "adapters": [
            _adapter(library, settings) for library in _pausing(_adapters.ADAPTERS, pause)
        ],
        "settings": _others(settings),
        "neighbours": neighbours.found(),
        "installed": neighbours.installed(),
        "warnings": list(_warnings),
    }


def _pausing(names: Iterable[str], pause: Callable[[], object]) -> Iterator[str]:
    for name in names:
        pause()
        yield name


def state_if_switched_on() -> dict[str, Any]:
    """Return how things would stand in a program that imports all that can be patched."""
    _collect_warnings()
    for name in _primitives.NAMES:
        for module in _primitives.modules_of(name):
            try:
                importlib.import_module(module)
            except ImportError:  # not in this version of Python
                continue
    instrumentor = _instrumentor.ConcurrencyInstrumentor()
    declared = {} if _configuration.is_disabled() else _configuration.keywords()
    instrumentor.instrument(skip_dep_check=True, **declared)
    try:
        for library in _adapters.ADAPTERS:
            if _adapters.version(library) is not None:
                _import_all_of(library)
        state = state_of_process()
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    return state | {"export": [*otlp.mismatches(by_default=otlp.default())]}


def _import_all_of(library: str) -> None:
    for modules in _adapters.ADAPTERS[library].values():
        for module in modules:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the program does not use it
                importlib.import_module(module)  # it may be in another version, or for others


def write_at_exit(file: Path) -> None:
    """Have this process write its state to ``file`` when it ends, unless another process will.

    It may end by ``os._exit``. If it becomes another program by ``exec``, that program writes.
    """
    own = os.getpid()
    if not _is_first(own, file.with_name("first")):
        return
    _collect_warnings()

    def write() -> None:
        if os.getpid() == own:
            file.write_text(json.dumps(state_of_process()), encoding="utf-8")

    def leave(original: Any, args: Any, kwargs: Any) -> Any:
        try:
            write()
        except Exception:
            _logger.exception("otel-concurrency could not write its status")
        return original(*args, **kwargs)

    atexit.register(write)
    Layer(os, "_exit", lambda raw: wrap_builtin(raw, leave)).apply()


def _is_first(pid: int, file: Path) -> bool:
    """Whether this process is the first that has claimed ``file``."""
    try:
        with file.open("x") as new:
            new.write(str(pid))
    except FileExistsError:
        return file.read_text() == str(pid)
    else:
        return True


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _provider() -> str | None:
    provider: object = getattr(trace, "_TRACER_PROVIDER", None)
    if provider is None or exporters.is_ours(provider):
        return None
    return exporters.class_of(provider)


# The primitives.


def state_of_primitive(name: str, settings: _settings.Settings | None) -> dict[str, Any]:
    policy = "off" if settings is None else settings.policies[name].value
    sources: Mapping[str, str] = {} if settings is None else settings.sources
    by_policy = "policy" if name != "subprocess" else name
    in_use = _instrumentor.primitives_in_use.get(name) if policy != "off" else None
    state: dict[str, Any] = {
        "name": name,
        "policy": policy,
        "set_by": sources.get(name) or sources.get(by_policy),
        "patched": [],
        "not_imported": [],
        "failures": {},
        "remarks": [],
    }
    if in_use is None:
        return state
    layers = list(_layers(in_use.layers.values()))
    return state | {
        "patched": sorted(in_use.layers.keys() - in_use.failures.keys()),
        "not_imported": sorted(
            module for module in in_use.modules if module not in sys.modules and _exists(module)
        ),
        "failures": in_use.failures,
        "remarks": [
            *_limits(in_use.layers.values()),
            *_covered(layers),
            *_bound_too_early(layers),
        ],
    }


def _limits(patches: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield what patches cannot do in this process, as far as they know."""
    for group in patches:
        for patch in group:
            yield from getattr(patch, "limits", tuple)()


def _exists(module: str) -> bool:
    """Whether this version of Python has the module, and so the packages that it is in."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# The libraries.


def _adapter(library: str, settings: _settings.Settings | None) -> dict[str, Any]:
    parts = [part for (name, _), part in _instrumentor.adapters_in_use.items() if name == library]
    on = settings is not None and library in settings.adapters
    layers = [layer for part in parts for layer in _layers(part.layers.values())] if on else []
    failures = {module: why for part in parts for module, why in part.failures.items()}
    return {
        "name": library,
        "version": _adapters.version(library),
        "on": on,
        "set_by": None if settings is None else settings.sources.get("adapters"),
        "patched": sorted({module for part in parts for module in part.layers} if on else ()),
        "failures": failures if on else {},
        "remarks": [*_covered(layers), *_bound_too_early(layers)],
    }


def _layers(patches: Iterable[Iterable[Any]]) -> Iterator[Layer]:
    for group in patches:
        for patch in group:
            for layer in getattr(patch, "layers", (patch,)):
                if isinstance(layer, Layer):
                    yield layer


def _covered(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield how other libraries have changed what is patched."""
    ours = {(layer.owner, layer.name) for layer in layers if layer.is_on_top}
    for layer in layers:
        if (layer.owner, layer.name) in ours or not layer.is_applied:
            continue
        named = f"{_name(layer.owner)}.{layer.name}"
        whose = _maker(vars(layer.owner).get(layer.name))
        if layer.is_in_place:
            yield f"{named}: {whose} has patched over it, which works"
        else:
            yield f"{named}: {whose} has replaced it, and does not call the original"


def _maker(wrapper: Any) -> str:
    """Return the module that made a wrapper, even where that looks like what it wraps."""
    function = getattr(wrapper, "_self_wrapper", wrapper)  # wrapt's
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    return str(names.get("__name__", "another library"))


def _name(owner: type | ModuleType) -> str:
    if isinstance(owner, ModuleType):
        return owner.__name__
    return f"{owner.__module__}.{owner.__qualname__}"


def _bound_too_early(layers: Iterable[Layer]) -> Iterator[str]:
    """Yield the modules that bound a name before it was patched, and so have the plain object."""
    plain = {
        id(layer.replaced): layer
        for layer in layers
        if isinstance(layer.owner, ModuleType) and layer.replaced is not None and _is_for_all(layer)
    }
    if not plain:
        return
    for name, module in sorted(sys.modules.items()):
        names: dict[str, Any] = getattr(module, "__dict__", {})  # anything may be in there
        if _is_the_libraries(name):
            continue
        for key, value in list(names.items()):
            layer = plain.get(id(value))
            if layer is not None:
                yield (
                    f"{name}.{key} was bound to {_name(layer.owner)}.{layer.name} before the "
                    "library was switched on, and carries no context"
                )


def _is_for_all(layer: Layer) -> bool:
    """Whether a layer is meant for all who use the object: not for what one library has imported.

    Those of the standard library stand for all, wherever the object is from: many are written in C.
    """
    if isinstance(layer.replaced, ModuleType):
        return False
    owner, home = layer.owner.__name__, getattr(layer.replaced, "__module__", None)
    return home in (owner, None) or _is_the_libraries(owner)


def _is_the_libraries(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top == "otel_concurrency"


# The other settings, and the warnings about them.


def _others(settings: _settings.Settings | None) -> list[dict[str, Any]]:
    if settings is None:
        return []
    values = {
        "excluded": ", ".join(settings.excluded),
        "link_after": f"{settings.link_after} ms",
        "flush_timeout": f"{settings.flush_timeout} ms",
        "metrics": str(settings.metrics).lower(),
        "report_orphans": str(settings.report_orphans).lower(),
        "keep_official_threading": str(settings.keep_official_threading).lower(),
    }
    return [
        {"name": name, "value": value, "set_by": settings.sources.get(name)}
        for name, value in values.items()
    ]


_warnings: list[str] = []


class _Collecting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _warnings.append(record.getMessage())


def _collect_warnings() -> None:
    logging.getLogger("otel_concurrency").addHandler(_Collecting(logging.WARNING))
