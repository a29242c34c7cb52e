"""Switches the library on and off: turns the settings into primitives, and these into patches."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

# The file of BaseInstrumentor opts out of type checking, so mypy sees no names in it.
from opentelemetry.context import Context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_concurrency import (
    _adapters,
    _configuration,
    _official_threading,
    _primitives,
    _settings,
    package,
)
from otel_concurrency._child_exit import flush, providers
from otel_concurrency._clean_starts import matching, patches
from otel_concurrency._configuration import Configuration
from otel_concurrency._core import faults, handoff, imports, patching, signatures
from otel_concurrency._crossing import environment
from otel_concurrency._generators import drivers
from otel_concurrency._linking import policies as _policy
from otel_concurrency._linking import span_start

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_concurrency import _metrics
    from otel_concurrency._settings import Keywords

_logger = logging.getLogger(__name__)

inherited = False
"""Whether the library is on in this process only because it is on in the parent process."""

disabled_by_file = False
"""Whether the loader's call was ignored because the configuration file disables the library."""


_AGAIN, _METER_PROVIDER = "as_it_was", "meter_provider"

_switched_on_with: dict[str, Any] = {}
"""The keywords that switch the library on with the present settings."""


class ConcurrencyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # see above
    """Carries OpenTelemetry context across the standard library's concurrency primitives.

    ``instrument()`` takes one keyword for each environment variable of
    :mod:`otel_concurrency.environment_variables`, named after it in lower case: ``policy``,
    ``threading``, ``futures``, ``asyncio``, ``sched``, ``queue``, ``multiprocessing``,
    ``subprocess``, ``generators`` (a :class:`~otel_concurrency.Policy` or its value),
    ``link_after`` and ``flush_timeout`` (milliseconds), ``metrics`` and
    ``keep_official_threading`` (true or false), ``adapters`` and ``excluded`` (each a
    comma-separated string, or strings). Metrics go to ``meter_provider``.
    Neither ``instrument()`` nor ``uninstrument()`` raises: a failure is logged, and the program
    runs as it would without the library.
    """

    # No state: BaseInstrumentor is a singleton whose __init__ runs at every construction.

    configuration = Configuration
    """The keys of a configuration file, where ``opentelemetry-configuration`` looks for them."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no requirement: the instrumented modules come with Python."""
        return package._instruments  # pyright: ignore[reportPrivateUsage]  # a name of OpenTelemetry's

    def instrument(self, **kwargs: Unpack[Keywords]) -> None:
        """Switch the library on, unless it is on.

        If this process has inherited the parent process's settings, this call replaces them. A call
        that brings no new settings changes nothing and logs nothing: ``opentelemetry-instrument``
        calls this again after a configuration file has switched the library on.
        """
        global disabled_by_file  # noqa: PLW0603
        if inherited:
            self.uninstrument()
        if self.is_instrumented_by_opentelemetry and not _brings_something_new(kwargs):
            return
        by_loader = bool(kwargs) and kwargs.keys() <= _KEYWORDS_OF_LOADER
        disabled_by_file = by_loader and _configuration.is_disabled()
        if disabled_by_file:
            return
        super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        try:
            given = kwargs.get(_AGAIN)
            settings = given or _settings.read(_primitives.NAMES, kwargs, _adapters.ADAPTERS)
            meter_provider = kwargs.get(_METER_PROVIDER)
            meter = _meter(settings, meter_provider)
            measure = None if meter is None else meter.measure
            _set_official_threading_aside(settings)
            for name in _primitives.NAMES:
                _switch_on(name, settings, measure)
            for library in settings.adapters:
                _switch_adapter_on(library, settings)
            _switch_clean_starts_on(settings)
            if meter is not None:
                _switch_metrics_on()
            watchers = [] if meter is None else [meter.count_root]
            _switch_span_starts_on(settings, watchers)
            _switch_flush_on(settings)
            _switch_environment_on(settings)
            _settings.in_force = settings
            _switched_on_with.update({_AGAIN: settings, _METER_PROVIDER: meter_provider})
        except Exception:
            _logger.exception(
                "otel-concurrency could not be switched on; the program runs without it"
            )

    def _uninstrument(self, **kwargs: Any) -> None:
        global inherited  # noqa: PLW0603
        inherited = False
        _settings.in_force = None
        _switched_on_with.clear()
        flush.timeout = 0
        span_start.link_after = 0
        span_start.watch_roots()
        undo = {"the base context": environment.leave}
        undo |= {one.name: one.switch_off for one in adapters_in_use.values()}
        undo |= {one.name: one.switch_off for one in primitives_in_use.values()}
        undo[_official_threading.NAME] = _official_threading.give_back
        for what, switch_off in undo.items():
            try:
                switch_off()
            except Exception:
                _logger.exception("otel-concurrency could not be switched off for %s", what)


def _brings_something_new(keywords: Mapping[str, Any]) -> bool:
    """Whether ``instrument()`` with ``keywords`` asks for settings other than those in force."""
    given = {name: value for name, value in keywords.items() if name in _KEYWORDS}
    if not given:
        return False
    return _settings.read(_primitives.NAMES, given, _adapters.ADAPTERS) != _settings.in_force


def unknown_keywords(keywords: Iterable[str]) -> list[str]:
    """Return those of ``keywords`` that ``instrument()`` does not take, in their order."""
    return _settings.unknown(_primitives.NAMES, keywords)


_KEYWORDS_OF_LOADER = {"skip_dep_check", "raise_exception_on_conflict"}
"""The keywords that ``opentelemetry-instrument`` passes. It does not read the configuration file.
"""

_KEYWORDS = frozenset(_configuration.known_keys())


@contextlib.contextmanager
def set_aside() -> Generator[None, None, None]:
    """Switch the library off inside the ``with`` block, and on again after it, as it was before.

    The block may switch it on with other settings.
    """
    global inherited  # noqa: PLW0603
    instrumentor = ConcurrencyInstrumentor()
    before, was_inherited = dict(_switched_on_with), inherited
    instrumentor.uninstrument()
    try:
        yield
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        instrumentor.instrument(**before)
        inherited = was_inherited


class _Primitive:
    """A primitive that was switched on at least once: its seam, and its layers by module."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, _primitives.Advice],
        seam: handoff.Seam | None = None,
    ) -> None:
        self.name = name
        self.modules = modules
        self.seam = seam or handoff.Seam(name)
        self.layers: dict[str, list[patching.Patch]] = {}
        """By module: the layers of its patches."""
        self.failures: dict[str, str] = {}
        """By module: the reason why it could not be patched."""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return self.name

    def switch_on(
        self,
        capture: handoff.Capture,
        change: Callable[[Context], Context] | None = None,
        starts_clean: Callable[[object], bool] | None = None,
        measure: Callable[[handoff.Seam], None] | None = None,
    ) -> None:
        """Patch the imported modules now, and each other module when it is imported.

        ``measure`` makes a seam measure its hand-offs.

        No lock is held while import hooks are registered, since hooks call this class while they
        hold locks of the import system.
        """
        with self._lock:
            self.failures.clear()
            self.seam.left_alone.clear()
            self.seam.change, self.seam.starts_clean = change, starts_clean
            self.seam.capture = capture
            if measure is not None:
                measure(self.seam)
        self._patch_when_imported()

    def _patch_when_imported(self) -> None:
        for module_name, advice in self.modules.items():
            patch = functools.partial(self._patch, module_name, advice)
            imports.when_imported(module_name, patch, owner=self.name)

    def switch_off(self) -> None:
        """Undo every patch; a patch with another patch on top stays, and becomes a pass-through."""
        with self._lock:
            self.seam.switch_off()
            for layers in self.layers.values():
                patching.undo_all(layers)

    def _patch(self, name: str, advice: _primitives.Advice, module: ModuleType) -> None:
        with self._lock:
            if not self._is_on():  # imported after uninstrument(): nothing to do
                return
            try:
                if name not in self.layers:
                    self.layers[name] = advice(module, self.seam)
                patching.apply_all(self.layers[name])
            except Exception as error:
                self.failures[name] = f"{type(error).__name__}: {error}"
                self._leave_alone(name)
                self._report(name, error)

    def _leave_alone(self, name: str) -> None:
        """Go on without a module. Since not all of it can be patched, none of it is."""
        self.seam.left_alone.add(name)
        _official_threading.give_back(name)

    def _is_on(self) -> bool:
        return self.seam.active

    def _report(self, module_name: str, error: Exception) -> None:
        is_changed = isinstance(error, AttributeError | signatures.UnknownSignatureError)
        report = faults.in_one_line if is_changed else faults.once
        report(
            _logger,
            (self.name, module_name),
            "OpenTelemetry context will not be propagated through %s: %s cannot be patched (%s)",
            self.name,
            module_name,
            self.failures[module_name],
        )


class Adapter(_Primitive):
    """The modules of a library that follow the setting of one primitive, and share its seam."""

    def __init__(self, library: str, primitive: _Primitive) -> None:
        modules = {
            module: functools.partial(_advise, library, primitive.name, module)
            for module in _adapters.ADAPTERS[library][primitive.name]
        }
        super().__init__(f"{library} ({primitive.name})", modules, primitive.seam)
        self.library = library
        self._on = False

    def follow(self) -> None:
        """Patch the imported modules now, and the others when they are imported.

        The seam is not switched on here: the primitive does that.
        """
        with self._lock:
            self.failures.clear()
            self._on = True
        self._patch_when_imported()

    def switch_off(self) -> None:
        """Undo every patch of the library. The primitive stays on, since it works without it."""
        with self._lock:
            self._on = False
            for layers in self.layers.values():
                patching.undo_all(layers)

    def _is_on(self) -> bool:
        return self._on and self.seam.active

    def _leave_alone(self, name: str) -> None:
        """Go on without the whole library: its code is not that of a version that is known."""
        self.switch_off()

    def _report(self, module_name: str, error: Exception) -> None:
        first, last = _adapters.tested(self.library)
        faults.in_one_line(
            _logger,
            (self.name, module_name),
            "%s %s is left alone: %s cannot be patched (%s). The versions that have been tested "
            "are %s to %s.",
            self.library,
            _adapters.version(self.library) or "of an unknown version",
            module_name,
            self.failures[module_name],
            first,
            last,
        )


def _advise(
    library: str, primitive: str, module_name: str, module: ModuleType, seam: handoff.Seam
) -> list[patching.Patch]:
    return _adapters.advice(library, primitive, module_name)(module, seam)


primitives_in_use: dict[str, _Primitive] = {}
adapters_in_use: dict[tuple[str, str], Adapter] = {}
"""By library and primitive."""

_creating = threading.Lock()


def _primitive(name: str, modules: Callable[[], Mapping[str, _primitives.Advice]]) -> _Primitive:
    """Return the primitive ``name``, which patches ``modules()``. Create it at the first call."""
    with _creating:
        if name not in primitives_in_use:
            primitives_in_use[name] = _Primitive(name, modules())
        return primitives_in_use[name]


def _matcher(name: str, excluded: Collection[str]) -> matching.Matcher | None:
    """Return the predicate for work that starts clean: excluded work, and the table's entries."""
    if name == "threading":
        return matching.thread_matcher(excluded)
    if name == "multiprocessing":
        return matching.process_matcher(excluded)
    if name == "generators":
        matches = matching.name_matcher((*drivers.TABLE, *excluded))
        return lambda name: matches(str(name))
    return matching.callable_matcher(excluded)


def _set_official_threading_aside(settings: _settings.Settings) -> None:
    """Set aside the parts of OpenTelemetry's instrumentor of threads that our primitives cover.

    Not if the settings say to keep that instrumentor.
    """
    policies = {name: settings.policies[name] for name in ("threading", "futures")}
    if not settings.keep_official_threading:
        on = [name for name, policy in policies.items() if policy is not _policy.Policy.OFF]
        _official_threading.set_aside(
            module for name in on for module in _primitives.modules_of(name)
        )
    elif _policy.Policy.LINK in policies.values():
        _official_threading.keep_beside_links()


def _switch_on(
    name: str, settings: _settings.Settings, measure: Callable[[handoff.Seam], None] | None
) -> None:
    policy = settings.policies[name]
    if policy is _policy.Policy.OFF:
        return
    match = _matcher(name, settings.excluded)
    _primitive(name, lambda: _primitives.modules_of(name)).switch_on(
        _policy.capture_for(policy, match, name), _policy.change_for(policy, name), match, measure
    )


def _switch_adapter_on(library: str, settings: _settings.Settings) -> None:
    for name in _adapters.ADAPTERS[library]:
        if settings.policies[name] is _policy.Policy.OFF:
            continue
        with _creating:
            key = library, name
            if key not in adapters_in_use:
                adapters_in_use[key] = Adapter(library, primitives_in_use[name])
        adapters_in_use[key].follow()


def _switch_clean_starts_on(settings: _settings.Settings) -> None:
    """Start tasks that libraries run for ever in event loops in the empty context."""
    if settings.policies["asyncio"] is _policy.Policy.OFF:
        return
    _primitive("clean starts", lambda: patches.MODULES).switch_on(handoff.capture)
    if settings.excluded:  # patched for each list of entries by itself
        name = f"excluded tasks: {', '.join(settings.excluded)}"
        _primitive(name, lambda: patches.excluded(settings.excluded)).switch_on(handoff.capture)


def _meter(settings: _settings.Settings, meter_provider: Any) -> _metrics.Meter | None:
    """Return what counts and measures; None if metrics are off."""
    if not settings.metrics:
        return None
    from otel_concurrency import _metrics

    try:
        return _metrics.meter_for(meter_provider)
    except Exception as error:
        handoff.report_fault("metrics", error)
        return None


def _switch_metrics_on() -> None:
    """Patch ``attach``, so that the arrival of a measured context is noticed."""
    from otel_concurrency import _metrics

    _primitive("metrics", lambda: _metrics.MODULES).switch_on(handoff.capture)


def _switch_span_starts_on(
    settings: _settings.Settings, watchers: Collection[span_start.RootWatcher]
) -> None:
    """Patch the SDK so that spans get their links when they start, and root spans are noticed.

    Not if there can be no links and there are no ``watchers`` of root spans.
    """
    policies = {*settings.policies.values()} - {_policy.Policy.OFF}
    if not policies and not settings.link_after and not watchers:
        return
    span_start.watch_roots(*watchers)
    span_start.link_after = settings.link_after * 1_000_000
    _primitive("spans", lambda: span_start.MODULES).switch_on(handoff.capture)


def _switch_flush_on(settings: _settings.Settings) -> None:
    """Have child processes export what they have recorded, if there can be any."""
    if settings.policies["multiprocessing"] is _policy.Policy.OFF or not settings.flush_timeout:
        return
    flush.timeout = settings.flush_timeout
    _primitive("providers", lambda: providers.MODULES).switch_on(handoff.capture)


def _switch_environment_on(settings: _settings.Settings) -> None:
    """Make this process join the trace in which it was started, if the setting allows it."""
    policy = settings.policies["subprocess"]
    if policy is not _policy.Policy.OFF:
        environment.enter(_policy.change_for(policy, "subprocess"))
