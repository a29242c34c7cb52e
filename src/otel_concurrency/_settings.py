"""The settings, from keywords and from the environment.

A keyword of ``instrument()`` has the name of its variable without the prefix, in lower case
(``OTEL_PYTHON_CONCURRENCY_SCHED`` is ``sched``), takes the same words, and beats it. The keys of a
declarative configuration file arrive as keywords (see ``_configuration``). Nothing here raises: a
value that cannot be used is reported once, in the user's own words, and counts as unset.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_concurrency import environment_variables as variables
from otel_concurrency._core import faults
from otel_concurrency._linking.policies import Policy

if TYPE_CHECKING:
    from typing import Literal, TypedDict

    GivenPolicy = Policy | Literal["parent", "link", "off"] | None

    class Keywords(TypedDict, total=False):
        """What ``instrument()`` takes; None: not given."""

        policy: GivenPolicy
        threading: GivenPolicy
        futures: GivenPolicy
        asyncio: GivenPolicy
        sched: GivenPolicy
        queue: GivenPolicy
        multiprocessing: GivenPolicy
        subprocess: GivenPolicy
        excluded: str | Iterable[str] | None
        link_after: int | None
        flush_timeout: int | None
        metrics: bool | None
        adapters: str | Iterable[str] | None
        keep_official_threading: bool | None
        # Of any instrumentor.
        tracer_provider: object
        meter_provider: object
        logger_provider: object
        skip_dep_check: bool
        raise_exception_on_conflict: bool


_logger = logging.getLogger(__name__)

_PREFIX = "OTEL_PYTHON_CONCURRENCY_"

_WORDS = {policy.value: policy for policy in Policy}

_OF_ANY_INSTRUMENTOR = frozenset(
    ("tracer_provider", "meter_provider", "logger_provider", "event_logger_provider")
)
"""Keywords that are passed to every instrumentor alike; this one has no use for them."""


DECLARED = "declared"
"""A keyword that comes with the others where they are those of a configuration file."""

_OPT_IN = frozenset(("subprocess",))
"""What is off unless it is switched on by its own setting."""


@dataclass(frozen=True)
class Settings:
    """One policy a primitive, by its setting's name in lower case, and what holds for all."""

    policies: Mapping[str, Policy]
    excluded: tuple[str, ...] = ()
    link_after: int = 60_000
    """Milliseconds after its end from which on a span is no implicit parent any more; 0: never."""
    flush_timeout: int = 5_000
    """Milliseconds that a child process may take at its end to export its telemetry; 0: none."""
    metrics: bool = False
    """Whether hand-offs are counted, and their waits measured."""
    adapters: tuple[str, ...] = ()
    """The libraries that are patched when the program imports them."""
    keep_official_threading: bool = False
    """Whether OpenTelemetry's own instrumentor of threads stays beside this library."""
    sources: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    """Where a setting was set, as the user would write it; one that is missing was not."""

    def as_keywords(self) -> dict[str, Any]:
        """Return the keywords of ``instrument()`` that amount to these settings, all plain."""
        return {
            **{name: policy.value for name, policy in self.policies.items()},
            "excluded": self.excluded,
            "link_after": self.link_after,
            "flush_timeout": self.flush_timeout,
            "metrics": self.metrics,
            "adapters": self.adapters or _NO_ADAPTER,
            "keep_official_threading": self.keep_official_threading,
        }


_ALL = "*"
_NO_ADAPTER = ("-*",)

in_force: Settings | None = None
"""The settings that the library is switched on with at present."""


def read(
    primitives: Iterable[str], keywords: Mapping[str, Any], adapters: Iterable[str] = ()
) -> Settings:
    """Return the settings of ``primitives``: from ``keywords``, else from the environment.

    ``adapters`` are the libraries that there are adapters for.
    """
    names = tuple(primitives)
    _report_unknown(names, keywords)
    given = _Given(keywords)
    default = _policy("policy", given, Policy.PARENT) or Policy.PARENT
    switched_on = Policy.PARENT if default is Policy.OFF else default
    return Settings(
        policies={
            name: _policy(name, given, switched_on) or (Policy.OFF if name in _OPT_IN else default)
            for name in names
        },
        excluded=_names("excluded", given),
        link_after=_milliseconds("link_after", given, Settings.link_after),
        flush_timeout=_milliseconds("flush_timeout", given, Settings.flush_timeout),
        metrics=_truth("metrics", given),
        adapters=_chosen("adapters", given, tuple(adapters)),
        keep_official_threading=_truth("keep_official_threading", given),
        sources=given.sources,
    )


def excluded() -> tuple[str, ...]:
    """Return what is excluded: also where the library is off, and it is only looked at."""
    return _names("excluded", _Given({})) if in_force is None else in_force.excluded


def variable(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return _PREFIX + name.upper()


def _report_unknown(primitives: tuple[str, ...], keywords: Mapping[str, Any]) -> None:
    known = (
        *primitives,
        "policy",
        "excluded",
        "link_after",
        "flush_timeout",
        "metrics",
        "adapters",
        "keep_official_threading",
    )
    for keyword in keywords:
        if keyword not in known and keyword not in _OF_ANY_INSTRUMENTOR | {DECLARED}:
            faults.once(
                _logger,
                ("keyword", keyword),
                "%r is not a setting of otel-concurrency and is ignored. The settings are: %s.",
                keyword,
                ", ".join(sorted(known)),
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
    """What the user gave for the settings, and which of it was used."""

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = keywords
        self.sources: dict[str, str] = {}

    def of(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield what was given for a setting, the strongest first, as (where, value).

        To ask for the next one is to say that the last could not be used.
        """
        for where, value in (
            (self._keyword(name), self._keywords.get(name)),
            (variable(name), os.environ.get(variable(name))),
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
    """Return the policy that was given for ``name``, where True is ``switched_on``."""
    for where, value in given.of(name):
        if type(value) is bool:
            return switched_on if value else Policy.OFF
        policy = value if isinstance(value, Policy) else _WORDS.get(_word(value))
        if policy is None:
            _report_invalid(where, value, "one of " + ", ".join(_WORDS))
            continue
        return policy
    return None


def _milliseconds(name: str, given: _Given, default: int) -> int:
    for where, value in given.of(name):
        number = value if type(value) is int else _number(_word(value))
        if number >= 0:
            return min(number, _LONGEST)
        _report_invalid(where, value, "an integer number of milliseconds, 0 or more")
    return default


_LONGEST = int(threading.TIMEOUT_MAX * 1000)
"""What a thread can wait; more is for ever as well."""


def _number(word: str) -> int:
    """Return the number that a word spells, and a negative one where it spells none."""
    if not (word.isascii() and word.isdigit()):
        return -1
    return int(word) if len(word) <= len(str(_LONGEST)) else _LONGEST  # int() takes 4300 digits


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
    """Return which of ``known`` are named: from left to right, the last word counts."""
    words = [word.lower() for word in _names(name, given)]
    unknown = [word for word in words if word.removeprefix("-") not in (*known, _ALL)]
    if unknown:
        faults.once(
            _logger,
            (name, *unknown),
            "%s got %s, which there is no adapter for. The adapters are: %s; '*' is all of them, "
            "and a '-' in front leaves one out.",
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
        _report_invalid(where, value, "a comma-separated string, or strings")
    return ()


def _report_invalid(where: str, value: object, valid: str) -> None:
    try:
        spelled = repr(value)
    except Exception:
        spelled = object.__repr__(value)
    faults.once(
        _logger,
        (where, spelled),
        "%s got %s, which is not valid and is ignored: it takes %s.",
        where,
        spelled,
        valid,
    )
