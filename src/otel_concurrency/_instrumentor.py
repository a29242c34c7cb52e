"""Switches the library on and off: turns the settings into primitives, and these into patches."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

# The file of BaseInstrumentor opts out of type checking, so mypy sees no names in it.
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_concurrency import _adapters, _official_threading, _primitives, _settings, package
from otel_concurrency._child_exit import flush, providers
from otel_concurrency._clean_starts import matching, patches
from otel_concurrency._core import handoff
from otel_concurrency._generators import drivers
from otel_concurrency._linking import policies as _policy
from otel_concurrency._linking import span_start
from otel_concurrency._patched import Adapter, Primitive

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_concurrency import _metrics
    from otel_concurrency._configuration import Configuration
    from otel_concurrency._settings import Keywords

_logger = logging.getLogger(__name__)

inherited = False
"""Whether the library is on in this process only because it is on in the parent process."""

disabled_by_file = False
"""Whether the loader's call was ignored because the configuration file disables the library."""


_AGAIN, _METER_PROVIDER = "as_it_was", "meter_provider"

_switched_on_with: dict[str, Any] = {}
"""The keywords that switch the library on with the present settings."""


class _Configuration:
    """Imports the section of a configuration file as a class when somebody asks for it."""

    def __get__(self, _instance: object, _owner: object = None) -> type[Configuration]:
        from otel_concurrency._configuration import Configuration

        return Configuration


class ConcurrencyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # see above
    """Carries OpenTelemetry context across the standard library's concurrency primitives.

    ``instrument()`` takes one keyword for each environment variable of
    :mod:`otel_concurrency.environment_variables`, named after it in lower case: ``policy``,
    ``threading``, ``futures``, ``asyncio``, ``sched``, ``queue``, ``multiprocessing``,
    ``subprocess``, ``generators`` (a :class:`~otel_concurrency.Policy` or its value),
    ``link_after`` and ``flush_timeout`` (milliseconds), ``metrics``, ``report_orphans`` and
    ``keep_official_threading`` (true or false), ``adapters`` and ``excluded`` (each a
    comma-separated string, or strings). Metrics go to ``meter_provider``.
    Neither ``instrument()`` nor ``uninstrument()`` raises: a failure is logged, and the program
    runs as it would without the library.
    """

    # No state: BaseInstrumentor is a singleton whose __init__ runs at every construction.

    configuration = _Configuration()
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
        disabled_by_file = by_loader and _is_disabled_by_file()
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
            _switch_span_starts_on(
                settings, [*_switch_metrics_on(meter), *_report_orphans(settings)]
            )
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
        undo: dict[str, Callable[[], object]] = {
            "the base context": _leave_environment,
            "root spans": span_start.watch_roots,
        }
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

_KEYWORDS = frozenset(_settings.known(_primitives.NAMES))


def _is_disabled_by_file() -> bool:
    if not _settings.has_configuration_file():
        return False
    from otel_concurrency import _configuration

    return _configuration.is_disabled()


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


primitives_in_use: dict[str, Primitive] = {}
adapters_in_use: dict[tuple[str, str], Adapter] = {}
"""By library and primitive."""

_creating = threading.Lock()


def _primitive(name: str, modules: Callable[[], Mapping[str, _primitives.Advice]]) -> Primitive:
    """Return the primitive ``name``, which patches ``modules()``. Create it at the first call."""
    with _creating:
        if name not in primitives_in_use:
            primitives_in_use[name] = Primitive(name, modules())
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


def _switch_metrics_on(meter: _metrics.Meter | None) -> Iterator[span_start.RootWatcher]:
    """Patch ``attach``, so that the arrival of a measured context is noticed.

    Yields the function that counts root spans.
    """
    if meter is not None:
        from otel_concurrency import _metrics

        _primitive("metrics", lambda: _metrics.MODULES).switch_on(handoff.capture)
        yield meter.count_root


def _report_orphans(settings: _settings.Settings) -> Iterator[span_start.RootWatcher]:
    """Have hand-offs noted, if orphans are to be logged; yield the function that logs them."""
    if settings.report_orphans:
        from otel_concurrency import _orphans

        for name in ("threading", "futures"):
            _orphans.starts_clean[name] = _matcher(name, settings.excluded)
        _primitive("orphans", lambda: _orphans.MODULES).switch_on(handoff.capture)
        yield _orphans.report


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
        from otel_concurrency._crossing import environment

        environment.enter(_policy.change_for(policy, "subprocess"))


def _leave_environment() -> None:
    """Leave the trace that :func:`_switch_environment_on` has joined, if it did."""
    environment: Any = sys.modules.get("otel_concurrency._crossing.environment")
    if environment is not None:
        environment.leave()
