"""Sets OpenTelemetry's own instrumentor of threads aside while this library is on.

``opentelemetry-bootstrap`` installs it into every environment. It carries context to the same
threads, timers and pools, and attaches what it has captured over what this library attaches: links
become children, a timer that re-arms itself is no round, and its copy of ``Thread.start`` on
``Timer`` leads past this library's. So its wrappers are taken off, and put back, by identity, when
this library is switched off. Where it is switched on later, it is so then. A wrapper that somebody
else has patched over cannot be taken off: it passes calls on, and attaches nothing.

Its parts go by the modules that are patched: where one is left alone, or its primitive is off, the
part that covers the same is left alone, too.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import faults, imports, patching
from otel_concurrency._core.patching import Layer

_logger = logging.getLogger(__name__)

MODULE = "opentelemetry.instrumentation.threading"
NAME = "opentelemetry-instrumentation-threading"
SETTING = "OTEL_PYTHON_CONCURRENCY_KEEP_OFFICIAL_THREADING"

_MISSING: Any = object()


_TakenOff = tuple[type, str, Any, Any]
"""A class, a name, the wrapper that was taken off, and what was left in its place."""


class _Part:
    """What its instrumentor does by one method, and undoes by another (the same since 0.49b0)."""

    def __init__(
        self, module: str, method: str, owner: Callable[[ModuleType], type], *names: str
    ) -> None:
        self.module = module
        self.method = method
        self.owner = owner
        self.names = names
        self.is_aside = False
        self._taken_off: list[_TakenOff] = []
        self._postponed: Callable[[], object] | None = None

    def layers(self, instrumentor: type) -> list[Layer]:
        """Return what has its two methods do nothing while it is set aside."""
        return [
            Layer(instrumentor, f"_instrument_{self.method}", self._instrument),
            Layer(instrumentor, f"_uninstrument_{self.method}", self._uninstrument),
        ]

    def _instrument(self, original: Any) -> Any:
        plain = original.__func__

        @functools.wraps(plain)
        def instrument(*args: Any, **kwargs: Any) -> Any:
            if not self.is_aside:
                return plain(*args, **kwargs)
            self._postponed = functools.partial(plain, *args, **kwargs)
            _say()
            return None

        return staticmethod(instrument)

    def _uninstrument(self, original: Any) -> Any:
        plain = original.__func__

        @functools.wraps(plain)
        def uninstrument(*args: Any, **kwargs: Any) -> Any:
            if not self.is_aside:
                return plain(*args, **kwargs)
            self._postponed = None
            self._taken_off.clear()
            return None

        return staticmethod(uninstrument)

    def set_aside(self, module: ModuleType) -> None:
        """Take its wrappers off, as far as no other library has patched over them."""
        if self.is_aside:
            return
        self.is_aside = True
        owner = self.owner(module)
        for name in self.names:
            while _is_theirs(vars(owner).get(name)):
                _say()
                self._taken_off.append(_take_off(owner, name))

    def give_back(self) -> Callable[[], object] | None:
        """Put its wrappers back; return what it was asked to do meanwhile."""
        if not self.is_aside:
            return None
        self.is_aside = False
        for owner, name, wrapper, left in reversed(self._taken_off):
            present = vars(owner).get(name, _MISSING)
            if present is left or present is _MISSING:
                setattr(owner, name, wrapper)
            else:  # what somebody else has patched meanwhile is to stay
                setattr(owner, name, type(wrapper)(present, wrapper._self_wrapper))
        self._taken_off.clear()
        postponed, self._postponed = self._postponed, None
        return postponed


_PARTS = (
    _Part("threading", "thread", lambda module: module.threading.Thread, "start", "run"),
    _Part("threading", "timer", lambda module: module.threading.Timer, "start", "run"),
    _Part(
        "concurrent.futures.thread",
        "thread_pool",
        lambda module: module.futures.ThreadPoolExecutor,
        "submit",
    ),
)
"""By the modules that this library patches to cover the same."""

_patched: set[str] = set()
"""The modules that this library patches, or is about to."""

_is_kept_beside_links = False
_layers: list[Layer] = []
_lock = threading.RLock()
_is_logged = False


def _begin() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


def set_aside(modules: Iterable[str]) -> None:
    """Set aside what covers the same as ``modules``, now or once it is imported.

    To be called before these are patched: a wrapper must be on top to be taken off.
    """
    with _lock:
        _patched.update(modules)
    imports.when_imported(MODULE, _imported, owner=__name__)


def keep_beside_links() -> None:
    """Say, once it is imported, that it takes the links from what it covers."""
    global _is_kept_beside_links  # noqa: PLW0603
    _is_kept_beside_links = True
    imports.when_imported(MODULE, _imported, owner=__name__)


def give_back(module: str | None = None) -> None:
    """Put back what covers the same as ``module``, or all. To be called when that is not patched.

    Never raises.
    """
    global _is_kept_beside_links  # noqa: PLW0603
    try:
        with _lock:
            _is_kept_beside_links = False
            _patched.difference_update([module] if module else list(_patched))
            if _layers and not _is_all_aside():
                _layers[0].undo()
            postponed = [part.give_back() for part in _PARTS if part.module not in _patched]
            if not _patched:
                patching.undo_all(_layers)
        for instrument in postponed:  # may import something: no lock is held
            if instrument is not None:
                instrument()
    except Exception as error:
        _report("could not be put back", error)


def _is_all_aside() -> bool:
    return all(part.module in _patched for part in _PARTS)


def is_set_aside() -> bool:
    """Whether any part of it is set aside at present."""
    return any(part.is_aside for part in _PARTS)


def _imported(module: ModuleType) -> None:
    if _is_kept_beside_links:
        _warn_of_links()
    try:
        with _lock:
            if _patched:
                _set_aside(module)
    except Exception as error:
        _report(
            "is left alone, because its code differs from that of versions 0.49b0 to 0.66b1", error
        )


def _set_aside(module: ModuleType) -> None:
    if not _layers or _layers[0].owner is not module:
        _layers[:] = _layers_of(module)
    patching.apply_all(_layers[1:])
    for part in _PARTS:
        if part.module in _patched:
            part.set_aside(module)
    if _is_all_aside():
        _layers[0].apply()


def _layers_of(module: ModuleType) -> list[Layer]:
    """Return what is replaced in it; the first is only for where all of it is set aside."""
    instrumentor = module.ThreadingInstrumentor
    return [
        Layer(module, "context", _Context),
        *(layer for part in _PARTS for layer in part.layers(instrumentor)),
    ]


def _say() -> None:
    """Log a line, once."""
    global _is_logged  # noqa: PLW0603
    if _is_logged:
        return
    _is_logged = True
    _logger.info(
        "%s is set aside while otel-concurrency is on: otel-concurrency carries context to the "
        "same threads, timers and pools. Set %s=true to keep it.",
        NAME,
        SETTING,
    )


def _warn_of_links() -> None:
    faults.in_one_line(
        _logger,
        "links",
        "%s is kept (%s), and attaches the context that it captured itself in the place of this "
        "library's. So the work of threads, timers and pools is a child even under `link`. Unset "
        "that setting, or disable that package: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading",
        NAME,
        SETTING,
    )


def _report(what: str, error: Exception) -> None:
    faults.in_one_line(_logger, what, "%s %s: %s: %s", NAME, what, type(error).__name__, error)


def _is_theirs(attribute: Any) -> bool:
    wrapper = getattr(attribute, "_self_wrapper", None)  # wrapt's
    return getattr(wrapper, "__module__", None) == MODULE


def _is_copy(owner: type, wrapper: Any) -> bool:
    """Whether what is wrapped is not the class's own, but was copied there from its base."""
    function: Any = inspect.unwrap(wrapper)
    qualname: str = getattr(function, "__qualname__", "")
    return any(qualname == f"{base.__qualname__}.{function.__name__}" for base in owner.__mro__[1:])


def _take_off(owner: type, name: str) -> _TakenOff:
    wrapper = vars(owner)[name]
    if _is_copy(owner, wrapper):
        delattr(owner, name)
        return owner, name, wrapper, _MISSING
    setattr(owner, name, wrapper.__wrapped__)
    return owner, name, wrapper, wrapper.__wrapped__


class _Context:
    """``opentelemetry.context``, as it is to wrappers that are to capture and attach nothing."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._nothing = Context()
        """What its wrappers capture meanwhile; they may attach it when they are back in use."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def get_current(self) -> Any:
        """Return an empty context."""
        return self._nothing

    def attach(self, context: Any) -> Any:
        """Attach what was captured before it was set aside, as work that was in flight then."""
        return None if context is self._nothing else self._plain.attach(context)

    def detach(self, token: Any) -> None:
        """Detach what was attached."""
        if token is not None:
            self._plain.detach(token)
