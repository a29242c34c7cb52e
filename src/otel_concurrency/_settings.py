"""The settings, from keywords and from the environment.

A keyword of ``instrument()`` has the name of its variable without the prefix, in lower case
(``OTEL_PYTHON_CONCURRENCY_SCHED`` is ``sched``). It takes the same values, and overrides the
variable. The keys of a declarative configuration file arrive as keywords (see ``_configuration``).
Nothing here raises: an invalid value is reported once, as the user wrote it, and counts as unset.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from otel_concurrency import environment_variables as variables
from otel_concurrency._core import faults
from otel_concurrency._linking.policies import Policy

if TYPE_CHECKING:
    from typing import Literal, TypedDict

    GivenPolicy = Policy | Literal["parent", "link", "off"] | None

    class Keywords(TypedDict, total=False):
        """The keywords of ``instrument()``; None counts as not given."""

        policy: GivenPolicy
        threading: GivenPolicy
        futures: GivenPolicy
        asyncio: GivenPolicy
        sched: GivenPolicy
        queue: GivenPolicy
        multiprocessing: GivenPolicy
        subprocess: GivenPolicy
        generators: GivenPolicy
        excluded: str | Iterable[str] | None
        link_after: int | None
        flush_timeout: int | None
        metrics: bool | None
        report_orphans: bool | None
        adapters: str | Iterable[str] | None
        keep_official_threading: bool | None
        # The keywords that every instrumentor takes.
        tracer_provider: object
        meter_provider: object
        logger_provider: object
        skip_dep_check: bool
        raise_exception_on_conflict: bool


_logger = logging.getLogger(__name__)

_PREFIX = "OTEL_PYTHON_CONCURRENCY_"

_SHORT = {"policy": variables.OTEL_PYTHON_CONCURRENCY}
"""The settings that can be set by another variable, too, and that variable."""

_WORDS = {policy.value: policy for policy in Policy}

_BESIDE_PRIMITIVES = (
    "policy",
    "excluded",
    "link_after",
    "flush_timeout",
    "metrics",
    "report_orphans",
    "adapters",
    "keep_official_threading",
)
"""The settings that are not the policy of a primitive."""

_OF_ANY_INSTRUMENTOR = frozenset(
    (
        "tracer_provider",
        "meter_provider",
        "logger_provider",
        "event_logger_provider",
        "skip_dep_check",
        "raise_exception_on_conflict",
    )
)
"""Keywords that are passed to every instrumentor. They are no settings of this library."""


DECLARED = "declared"
"""A keyword that is added if the other keywords come from a configuration file."""

CONFIGURATION_FILE = "OTEL_CONFIG_FILE"
"""The variable that names a declarative configuration file (see ``_configuration``)."""

_OPT_IN = frozenset(("subprocess",))
"""The primitives that are off unless their own setting switches them on."""


_NEVER_LINKED = {
    "generators": "a generator that goes on after a `yield` does work that was not handed off"
}
"""Primitives without `link`, and why."""


class Settings:
    """A policy for each primitive, by its setting's name in lower case, and the other settings.

    Not a dataclass: to make one takes a millisecond of the program's start. Never changed.
    """

    link_after: int = 60_000
    """How long (ms) after its end a span can still become a parent implicitly; 0: without limit."""
    flush_timeout: int = 5_000
    """How long (ms) a child process may export its telemetry at its end; 0: it does not export."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        excluded: tuple[str, ...] = (),
        link_after: int = link_after,
        flush_timeout: int = flush_timeout,
        metrics: bool = False,
        report_orphans: bool = False,
        adapters: tuple[str, ...] = (),
        keep_official_threading: bool = False,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.policies = policies
        self.excluded = excluded
        self.link_after = link_after
        self.flush_timeout = flush_timeout
        self.metrics = metrics
        """Whether hand-offs and root spans are counted, and waits measured."""
        self.report_orphans = report_orphans
        """Whether root spans in work that was handed off inside a span are logged."""
        self.adapters = adapters
        """The libraries that are patched when the program imports them."""
        self.keep_official_threading = keep_official_threading
        """Whether OpenTelemetry's own instrumentor of threads stays beside this library."""
        self.sources: Mapping[str, str] = {} if sources is None else sources
        """Where each setting was set, as the user would write it. Unset ones are missing here."""

    def __eq__(self, other: object) -> bool:
        """Whether the settings are the same, wherever they were set."""
        if not isinstance(other, Settings):
            return NotImplemented
        return self.as_keywords() == other.as_keywords()

    __hash__ = None  # type: ignore[assignment]  # the policies are in a dict

    def __repr__(self) -> str:
        return f"Settings({self.as_keywords()})"

    def as_keywords(self) -> dict[str, Any]:
        """Return the keywords of ``instrument()`` for these settings, with plain values only."""
        return {
            **{name: policy.value for name, policy in self.policies.items()},
            "excluded": self.excluded,
            "link_after": self.link_after,
            "flush_timeout": self.flush_timeout,
            "metrics": self.metrics,
            "report_orphans": self.report_orphans,
            "adapters": self.adapters or _NO_ADAPTER,
            "keep_official_threading": self.keep_official_threading,
        }


_ALL = "*"
_NO_ADAPTER = ("-*",)

in_force: Settings | None = None
"""The settings with which the library is switched on at present; None while it is off."""


def read(
    primitives: Iterable[str], keywords: Mapping[str, Any], adapters: Iterable[str] = ()
) -> Settings:
    """Return the settings of ``primitives``: from ``keywords``, else from the environment.

    ``adapters`` are the libraries for which there is an adapter.
    """
    names = tuple(primitives)
    _report_unknown(names, keywords)
    given = _Given(keywords)
    default = _policy("policy", given, Policy.PARENT) or Policy.PARENT
    switched_on = Policy.PARENT if default is Policy.OFF else default
    return Settings(
        policies={
            name: _policy(name, given, _unlinked(name, switched_on)) or _default(name, default)
            for name in names
        },
        excluded=_names("excluded", given),
        link_after=_milliseconds("link_after", given, Settings.link_after),
        flush_timeout=_milliseconds("flush_timeout", given, Settings.flush_timeout),
        metrics=_truth("metrics", given),
        report_orphans=_truth("report_orphans", given),
        adapters=_chosen("adapters", given, tuple(adapters)),
        keep_official_threading=_truth("keep_official_threading", given),
        sources=given.sources,
    )


def excluded() -> tuple[str, ...]:
    """Return the names that are excluded. While the library is off, read the environment."""
    return _names("excluded", _Given({})) if in_force is None else in_force.excluded


def variable(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return _PREFIX + name.upper()


def known(primitives: Iterable[str]) -> tuple[str, ...]:
    """Return the names of all settings, where there are these ``primitives``."""
    return (*primitives, *_BESIDE_PRIMITIVES)


def unknown(primitives: Iterable[str], keywords: Iterable[str]) -> list[str]:
    """Return those of ``keywords`` that ``instrument()`` does not take, in their order."""
    taken = {*known(primitives), *_OF_ANY_INSTRUMENTOR}
    return [keyword for keyword in keywords if keyword not in taken]


def has_configuration_file() -> bool:
    """Whether the environment names a declarative configuration file."""
    return bool(os.environ.get(CONFIGURATION_FILE))


def _report_unknown(primitives: tuple[str, ...], keywords: Mapping[str, Any]) -> None:
    for keyword in unknown(primitives, keywords):
        if keyword != DECLARED:
            faults.once(
                _logger,
                ("keyword", keyword),
                "%r is not a setting of otel-concurrency and is ignored. The settings are: %s.",
                keyword,
                ", ".join(sorted(known(primitives))),
            )
    spelled = {value for key, value in vars(variables).items() if key.startswith(_PREFIX)}
    for key in os.environ:
        if key.startswith(_PREFIX) and key not in spelled:
            faults.once(
                _logger,
                ("variable", key),
                "The environment variable %s is not a setting of otel-concurrency and is ignored. "
                "The settings are: %s.",
                key,
                ", ".join(sorted(spelled)),
            )


class _Given:
    """The values that the user gave for the settings, and which of them were used."""

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = keywords
        self.sources: dict[str, str] = {}

    def of(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield the values given for a setting as (where, value), by decreasing precedence.

        The caller asks for the next value only if it could not use the last one.
        """
        for where, value in (
            (self._keyword(name), self._keywords.get(name)),
            (variable(name), os.environ.get(variable(name))),
            (_SHORT.get(name, ""), os.environ.get(_SHORT.get(name, ""))),
        ):
            if not _is_unset(value):
                self.sources[name] = where
                yield where, value
                del self.sources[name]

    def _keyword(self, name: str) -> str:
        if DECLARED in self._keywords:
            return f"{name} in the configuration file"
        return f"instrument({name}=...)"


def _is_unset(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _policy(name: str, given: _Given, switched_on: Policy) -> Policy | None:
    """Return the policy that was given for ``name``; the value True means ``switched_on``."""
    for where, value in given.of(name):
        if type(value) is bool:
            return switched_on if value else Policy.OFF
        policy = value if isinstance(value, Policy) else _WORDS.get(_word(value))
        reason = _NEVER_LINKED.get(name) if policy is Policy.LINK else ""
        if policy is not None and not reason:
            return policy
        words = [word for word in _WORDS if not reason or word != Policy.LINK.value]
        valid = "one of " + ", ".join(words)
        _report_invalid(where, value, f"{valid} ({reason})" if reason else valid)
    return None


def _default(name: str, default: Policy) -> Policy:
    """Return the policy of a primitive without a setting of its own."""
    return Policy.OFF if name in _OPT_IN else _unlinked(name, default)


def _unlinked(name: str, policy: Policy) -> Policy:
    """Return ``policy``, or the nearest one to it that the primitive has."""
    return Policy.PARENT if policy is Policy.LINK and name in _NEVER_LINKED else policy


def _milliseconds(name: str, given: _Given, default: int) -> int:
    for where, value in given.of(name):
        number = value if type(value) is int else _number(_word(value))
        if number >= 0:
            return min(number, _LONGEST)
        _report_invalid(where, value, "an integer number of milliseconds, 0 or more")
    return default


_LONGEST = int(threading.TIMEOUT_MAX * 1000)
"""The longest time (ms) that a thread can wait. A longer time has the same effect."""


def _number(word: str) -> int:
    """Return the number in ``word``; a negative number if it is none."""
    if not (word.isascii() and word.isdigit()):
        return -1
    # int() raises for more than 4300 digits.
    return int(word) if len(word) <= len(str(_LONGEST)) else _LONGEST


def _truth(name: str, given: _Given) -> bool:
    for where, value in given.of(name):
        word = str(value).lower() if type(value) is bool else _word(value)
        if word in _TRUTHS:
            return _TRUTHS[word]
        _report_invalid(where, value, "true or false")
    return False


_TRUTHS = {"true": True, "false": False}


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _chosen(name: str, given: _Given, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the chosen names of ``known``. Words apply from left to right; the last one wins."""
    words = [word.lower() for word in _names(name, given)]
    unknown = [word for word in words if word.removeprefix("-") not in (*known, _ALL)]
    if unknown:
        faults.once(
            _logger,
            (name, *unknown),
            "%s got %s: there is no such adapter. The adapters are: %s; '*' stands for all of "
            "them, and '-' before a name excludes it.",
            given.sources[name],
            ", ".join(map(repr, unknown)),
            ", ".join(sorted(known)),
        )
        words = [word for word in words if word not in unknown]
    chosen = set(known) if not words or words[0].startswith("-") else set[str]()
    for word in words:
        named = set(known) if word.removeprefix("-") == _ALL else {word.removeprefix("-")}
        chosen = chosen - named if word.startswith("-") else chosen | named
    return tuple(one for one in known if one in chosen)


def _names(name: str, given: _Given) -> tuple[str, ...]:
    for where, value in given.of(name):
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        try:
            parts = tuple(value)
        except Exception:
            parts = (value,)
        if all(isinstance(part, str) for part in parts):
            return tuple(part.strip() for part in parts if part.strip())
        _report_invalid(where, value, "a comma-separated string or a list of strings")
    return ()


def _report_invalid(where: str, value: object, valid: str) -> None:
    try:
        spelled = repr(value)
    except Exception:
        spelled = object.__repr__(value)
    faults.once(
        _logger,
        (where, spelled),
        "%s got %s, which is not valid and is ignored; expected %s.",
        where,
        spelled,
        valid,
    )
