"""What a process that was started by an instrumented one runs to become like it.

It stands outside the rest: no module imports it. The started process finds it by name, in a text
that it was sent, so that one that does not have the library goes on without (see ``_primitives``).

A child may be over before the library could be imported. So a child of ``multiprocessing`` only
*stands by* at first: it imports nothing but this file, and is instrumented when its own code begins
something that the library is concerned with. Until then there is one flow, the main thread's, and
no context that anything could read. What ends that state is

- the import of a module that is patched, of OpenTelemetry, or of one that handles flows,
- the start of a thread or of a process,
- the first use of a context, where the program's main module has imported OpenTelemetry's API.

This file imports no other module, and none of the standard library that such a child does not have.
"""

from __future__ import annotations

import functools
import sys
import threading

TYPE_CHECKING = False  # the module `typing` is not imported in such a child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_HEADERS = "_otel_concurrency_headers"
_INSTRUMENTED = "_otel_concurrency_instrumented"

_CONTEXT_API = "opentelemetry.context"

_OBSERVED = frozenset(
    (
        "_thread",
        "multiprocessing.process",
        "opentelemetry.context.contextvars_context",
        "signal",
        "threading",
        "weakref",
    )
)
"""Patched modules that a child may have at its start and stand by. The others hand work off, or
receive it, in ways that are not seen here.

The patches of ``signal`` and ``weakref`` reach what was registered before.
"""

_FLOWS = frozenset(("contextvars", "greenlet"))
"""Modules by which a program makes flows that have a current context of their own."""

_IMPORTS_OBSERVED_MODULES = "wrapt"
"""The library needs this module, and must not be switched on by something that it imports."""

_WHOLE = ("opentelemetry", "otel_concurrency")

_NOT_BEFORE_SUBMODULES = frozenset(("logging", "multiprocessing"))
"""Packages that do not import those of their modules that are patched."""


def instrument(settings: Mapping[str, Any]) -> None:
    """Instrument this process with the keywords in ``settings``, unless it is already.

    It is under ``opentelemetry-instrument``, or where the program does so when it is imported: what
    the program says of itself holds, now and later.
    """
    from otel_concurrency import _instrumentor

    instrumentor = _instrumentor.ConcurrencyInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(skip_dep_check=True, **settings)
        _instrumentor.inherited = True


def stand_by(settings: Mapping[str, Any], patched: str) -> None:
    """Instrument this process as :func:`instrument` does, once that can make a difference.

    ``patched`` has the names of all modules that are patched when they are imported, separated by
    spaces. Call it in the main thread of a child of ``multiprocessing``, before its ``_bootstrap``.
    """
    names = frozenset(patched.split())
    if _can_stand_by(settings, names):
        _StandBy(settings, names)
    else:
        instrument(settings)


def _can_stand_by(settings: Mapping[str, Any], names: frozenset[str]) -> bool:
    present = sys.modules
    if (
        "otel_concurrency._instrumentor" in present
        or settings.get("metrics")  # which measure from the start
        or threading.active_count() > 1
        or not names.isdisjoint(present.keys() - _OBSERVED)
    ):
        return False
    if _CONTEXT_API in present:
        return _variable_of_context() is not None and "greenlet" not in present
    return _FLOWS.isdisjoint(present)


def _variable_of_context() -> Any:
    """Return the variable behind OpenTelemetry's default runtime context; None under another."""
    runtime = getattr(sys.modules[_CONTEXT_API], "_RUNTIME_CONTEXT", None)
    if type(runtime).__name__ == "ContextVarsRuntimeContext":
        return getattr(runtime, "_current_context", None)
    return None


class _StandBy:
    """The state of a child that is not instrumented yet. It does not fail what it stands in for."""

    def __init__(self, settings: Mapping[str, Any], names: frozenset[str]) -> None:
        self._settings = settings
        self._is_over = False
        self._headers: Any = None
        self._body = False
        self._end: Callable[[], None] | None = None
        self._variable = _variable_of_context() if _CONTEXT_API in sys.modules else None
        self._context: Any = None
        """The context of the child's work. It is empty until it is needed, and current already: the
        program may copy the variables of its flow."""
        self._thread = threading.get_ident()
        self._watched = _with_packages(names) | _FLOWS | {_IMPORTS_OBSERVED_MODULES}
        self._undo: list[Callable[[], None]] = []
        self._undone: list[object] = []
        """The replacements that the program has left in their places."""
        self._stand()

    def _stand(self) -> None:
        self._undo = [self._leave_finders]
        sys.meta_path.insert(0, self)
        thread: Any = sys.modules["_thread"]
        process: Any = sys.modules["multiprocessing.process"].BaseProcess
        self._replace(threading.Thread, "start", self._before)
        self._replace(process, "start", self._before)
        self._replace(process, "_bootstrap", self._around_body)
        for name in ("start_new_thread", "start_new", "start_joinable_thread"):
            if hasattr(thread, name):
                self._replace(thread, name, _Builtin)
        if self._variable is not None:
            self._replace(sys.modules[_CONTEXT_API], "_RUNTIME_CONTEXT", _Runtime)

    def _leave_finders(self) -> None:
        finders: Any = sys.meta_path  # None at the end of the interpreter
        for index, finder in enumerate(finders or ()):
            if finder is self:
                del finders[index]
                return

    def _replace(self, owner: Any, name: str, replacement_of: Callable[..., Any]) -> None:
        original = owner.__dict__[name]
        replacement = replacement_of(self, owner, name, original)
        setattr(owner, name, replacement)

        def undo() -> None:
            if owner.__dict__.get(name) is replacement:
                setattr(owner, name, original)
                self._undone.append(replacement)

        self._undo.append(undo)

    def present(self, place: tuple[Any, str, Any], replacement: Any) -> Any:
        """Switch on; return what is to be called instead of ``replacement``.

        That is ``original`` where the program's own replacement calls this one, and else what has
        taken its place. In the first case this call has passed the place already, and carries no
        context.
        """
        self.switch_on()
        owner, name, original = place
        return owner.__dict__[name] if replacement in self._undone else original

    def _before(self, _state: Any, owner: Any, name: str, original: Any) -> Any:
        @functools.wraps(original)
        def start(*args: Any, **kwargs: Any) -> Any:
            return self.present((owner, name, original), start)(*args, **kwargs)

        return start

    def _around_body(self, _state: Any, owner: Any, name: str, original: Any) -> Any:
        @functools.wraps(original)
        def _bootstrap(process: Any, *args: Any, **kwargs: Any) -> Any:
            if self._is_over:
                present = self.present((owner, name, original), _bootstrap)
                return present(process, *args, **kwargs)
            process.__dict__.pop(_INSTRUMENTED, None)
            self._headers = process.__dict__.pop(_HEADERS, None)
            self._body = True
            if self._variable is not None:
                self._context = sys.modules[_CONTEXT_API].Context()
                self._variable.set(self._context)
            try:
                return original(process, *args, **kwargs)
            finally:
                self._body, self._headers = False, None
                if self._end is not None:
                    self._end()

        return _bootstrap

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Switch on before a watched module is imported; then find it as the others do."""
        if self._is_over or (name not in self._watched and name.partition(".")[0] not in _WHOLE):
            return None
        is_there = name in sys.modules  # it is reloaded
        self.switch_on()
        if not is_there and getattr(sys.modules.get(name), "__spec__", None) is not None:
            return _spec_of(sys.modules[name])
        if not self._is_over:
            return None
        # The interpreter goes through the list of finders by position, and it has changed.
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                return spec
        return None

    def switch_on(self) -> None:
        """Instrument the process, and give its work the context that it was started in.

        That has to wait while OpenTelemetry's API is being imported, which the library needs.
        """
        if self._is_over or any(_begins(sys.modules[name]) for name in _modules_of_the_api()):
            return
        self._is_over = True
        release: Callable[[], object] | None = None
        try:
            release = _hold_signals()
            for undo in reversed(self._undo):
                undo()
            instrument(self._settings)
            if self._body:
                from otel_concurrency._primitives._multiprocessing import _process

                self._end = _process.begin_late(self._headers, self._context, self._thread)
        except Exception as error:
            self._after_fault(error)
        finally:
            if release is not None:
                release()

    def _after_fault(self, error: Exception) -> None:
        try:
            if _may_pass():
                self._is_over = False
                self._stand()
            else:
                _report(error)
        except Exception:  # noqa: S110 - not even that can be imported by which it is reported
            pass


def _hold_signals() -> Callable[[], object]:
    """Have the program's handlers of signals wait until the returned function is called.

    One that raises, as for a time limit, would fail the library's code and not the program's.
    """
    signal: Any = sys.modules.get("signal")
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:  # on Windows, or without handlers
        return bool
    handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    before = mask(signal.SIG_BLOCK, handled)
    return lambda: mask(signal.SIG_SETMASK, before)


def _may_pass() -> bool:
    """Whether the library may be imported later, though it could not be imported now.

    It may need a module that is being imported: that of the program's import.
    """
    return any(map(_begins, list(sys.modules.values())))


def _modules_of_the_api() -> list[str]:
    return [name for name in list(sys.modules) if name.partition(".")[0] == "opentelemetry"]


def _begins(module: Any) -> bool:
    try:
        content: Any = object.__getattribute__(module, "__dict__")  # loads no lazy module
    except AttributeError:
        return False
    # The import system marks the spec (PEP 451) so; the interpreter reads this mark too.
    return bool(getattr(content.get("__spec__"), "_initializing", False))


def _report(error: Exception) -> None:
    import logging

    from otel_concurrency._core import faults

    faults.once(
        logging.getLogger(__name__),
        "switch on",
        "This child process is not instrumented: %s: %s",
        type(error).__name__,
        error,
    )


def _with_packages(names: frozenset[str]) -> set[str]:
    """Return ``names`` and the packages around them, since these import their modules.

    The library may need the package itself: it must not be switched on in the middle of its import.
    """
    found = set(names)
    for name in names:
        package = name.rpartition(".")[0]
        while package and package not in found:
            found.add(package)
            package = package.rpartition(".")[0]
    return found - _NOT_BEFORE_SUBMODULES


class _Builtin:
    """Stands in for a builtin function: it does not bind, and pickles by name."""

    def __init__(self, state: _StandBy, owner: Any, name: str, original: Any) -> None:
        functools.update_wrapper(self, original)
        self._state = state
        self._place = owner, name, original

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._state.present(self._place, self)(*args, **kwargs)

    def __reduce__(self) -> str:
        return self._place[1]


class _Runtime:
    """Stands in for OpenTelemetry's runtime context, which each use of a context asks."""

    def __init__(self, state: _StandBy, _owner: Any, _name: str, original: Any) -> None:
        self._state = state
        self._original = original

    def __getattr__(self, name: str) -> Any:
        self._state.switch_on()
        return getattr(self._original, name)


class _Loaded:
    """A loader of a module that was imported while its import began. It keeps what there is.

    A finder that has imported the module itself is not asked for its loader, but the module is
    (``importlib._bootstrap._find_spec``, from 3.4 to 3.15). So the module refers to this one until
    it is used.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, _spec: Any) -> Any:
        return self._module

    def exec_module(self, module: Any) -> None:
        module.__spec__ = self._spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spec.loader, name)


def _spec_of(module: Any) -> Any:
    from importlib.machinery import ModuleSpec

    spec = module.__spec__
    found = ModuleSpec(spec.name, None)
    found.__dict__.update(spec.__dict__)
    found.loader = _Loaded(module)  # type: ignore[assignment]
    module.__spec__ = found
    return found
