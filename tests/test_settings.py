"""Settings: keywords and environment in parity, and no value that can hurt the program."""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_concurrency import ConcurrencyInstrumentor, Policy, _primitives, _settings
from otel_concurrency import environment_variables as variables
from otel_concurrency._core import faults

NAMES = _primitives.NAMES
PREFIX = "OTEL_PYTHON_CONCURRENCY_"
CONSTANTS = [name for name in vars(variables) if name[0] not in "_@"]  # @: pytest's own
OPT_IN = ("subprocess",)
NEVER_LINKED = ("generators",)
DURATIONS = {"link_after": 60_000, "flush_timeout": 5_000}
WAIT = 20
AT_IMPORT = ("pure_python",)
"""Settings that are read when the library is imported, so that they are no keywords."""

TRUTHS = ("metrics", "report_orphans", "keep_official_threading")
SETTINGS = (*NAMES, "policy", "excluded", "adapters", *TRUTHS, *DURATIONS)

texts = st.one_of(
    st.sampled_from(
        ["parent", "True", " OFF ", "Link", "link", "", " ", ",", "*", "a.b, c*", "off,off"]
    ),
    st.integers().map(str),
    st.integers(1, 6000).map(lambda digits: "9" * digits),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary().map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
)
huge = st.integers(1, 6000).map(lambda digits: 10**digits)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), huge, st.floats(), texts, st.binary())
    | st.sampled_from([*Policy, Policy, object()]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """Keep the settings of whoever runs the tests out of them."""
    for variable in list(os.environ):
        if variable.startswith("OTEL_"):
            monkeypatch.delenv(variable)


@pytest.fixture(params=["keyword", "environment"])
def read(request, monkeypatch):
    """Return a function that reads the settings given to it, from one of the two sources."""

    def read_keywords(**given):
        return _settings.read(NAMES, given)

    def read_environment(**given):
        for name, value in given.items():
            monkeypatch.setenv(_settings.variable(name), value)
        return _settings.read(NAMES, {})

    return read_keywords if request.param == "keyword" else read_environment


def by_default(default=Policy.PARENT):
    """Return the policies where only the default is set."""
    policies = dict.fromkeys(NAMES, default) | dict.fromkeys(OPT_IN, Policy.OFF)
    if default is Policy.LINK:
        policies |= dict.fromkeys(NEVER_LINKED, Policy.PARENT)
    return policies


def only(name, policy, default=Policy.PARENT):
    """Return the policies where ``name`` has ``policy`` and every other one the default."""
    return by_default(default) | {name: policy}


def test_default_is_parent_for_every_primitive():
    """With nothing set, every primitive but those that are opt-in is `parent`, none excluded."""
    assert _settings.read(NAMES, {}) == _settings.Settings(policies=by_default(), excluded=())


@pytest.mark.parametrize("name", OPT_IN)
def test_what_is_opt_in_is_on_by_its_own_setting_alone(name, read):
    """The default of all is not about what is off by default."""
    assert read(policy="link").policies[name] is Policy.OFF
    assert read(**{name: "parent"}).policies[name] is Policy.PARENT


@pytest.mark.parametrize("name", NEVER_LINKED)
def test_link_is_refused_where_nothing_is_handed_off(name, read, caplog):
    """`link` is reported with the reason, and counts as unset; as the default it is silent."""
    assert read(policy="link").policies[name] is Policy.PARENT
    assert not caplog.records
    assert read(**{name: "link"}).policies[name] is Policy.PARENT
    assert read(policy="off", **{name: "link"}).policies[name] is Policy.OFF
    message = "\n".join({record.getMessage() for record in caplog.records})
    assert message.count("'link'") == 1
    assert "parent, off" in message
    assert "was not handed off" in message


@pytest.mark.parametrize("name", NAMES)
def test_keyword_and_environment_mean_the_same(name, read, caplog):
    """A primitive's setting takes the same word from its keyword and from its variable."""
    assert read(**{name: "off"}).policies == only(name, Policy.OFF)
    assert not caplog.records


@pytest.mark.parametrize("name", NAMES)
def test_keyword_beats_environment(name, monkeypatch):
    """Where both are given, the keyword's value applies."""
    monkeypatch.setenv(_settings.variable(name), "off")
    assert _settings.read(NAMES, {name: "parent"}).policies[name] is Policy.PARENT
    monkeypatch.setenv(_settings.variable(name), "parent")
    assert _settings.read(NAMES, {name: "off"}).policies[name] is Policy.OFF


def test_policy_is_the_default_of_all(read):
    """The setting `policy` applies to every primitive that has none of its own."""
    assert read(policy="off").policies == dict.fromkeys(NAMES, Policy.OFF)
    assert read(policy="link").policies == by_default(Policy.LINK)


@pytest.mark.parametrize("name", NAMES)
def test_a_primitive_of_its_own_mind_beats_the_default(name, read):
    """A primitive's own setting beats `policy`."""
    settings = read(policy="off", **{name: "parent"})
    assert settings.policies == only(name, Policy.PARENT, default=Policy.OFF)


@pytest.mark.parametrize("name", NAMES)
def test_a_primitive_of_its_own_in_the_environment_beats_the_default_keyword(name, monkeypatch):
    """What is said of one primitive is more specific than what is said of all, wherever it is."""
    monkeypatch.setenv(_settings.variable(name), "parent")
    assert _settings.read(NAMES, {"policy": "off"}).policies[name] is Policy.PARENT


@pytest.mark.parametrize("empty", ["", " \t"])
@pytest.mark.parametrize("name", [*NAMES, "policy"])
def test_empty_is_unset(name, empty, read, caplog):
    """A value of nothing but space is as if it had not been given, and is not worth a warning."""
    assert read(**{name: empty}).policies == by_default()
    assert not caplog.records


def test_empty_keyword_leaves_the_environment_its_say(monkeypatch):
    """A keyword that is empty or None does not hide the variable's value."""
    monkeypatch.setenv(_settings.variable("sched"), "off")
    for unset in ("", None):
        assert _settings.read(NAMES, {"sched": unset}).policies == only("sched", Policy.OFF)


@pytest.mark.parametrize("word", ["off", "OFF", "Off", " off ", "\toff\n"])
def test_case_and_surrounding_space_do_not_matter(word, read, caplog):
    """Policies are recognised in any case and with space around them."""
    assert read(futures=word).policies == only("futures", Policy.OFF)
    assert not caplog.records


@pytest.mark.parametrize("name", NAMES)
def test_keyword_takes_the_enum(name, caplog):
    """A keyword takes a `Policy` as well as its value."""
    assert _settings.read(NAMES, {name: Policy.OFF}).policies == only(name, Policy.OFF)
    assert not caplog.records


@pytest.mark.parametrize("name", [*NAMES, "policy"])
def test_unknown_value_is_one_warning_and_the_default(name, read, caplog):
    """An unknown word is quoted in one warning that names the valid ones; the default applies."""
    for _ in range(3):
        assert read(**{name: "Chlid"}).policies == by_default()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert "'Chlid'" in message
    assert all(policy.value in message for policy in Policy)
    assert f"{name}=" in message or _settings.variable(name) in message


def test_unknown_value_falls_back_to_the_default_that_was_set(read):
    """An unknown word for one primitive leaves it the policy that `policy` gives to all."""
    assert read(policy="off", sched="nonsense").policies == dict.fromkeys(NAMES, Policy.OFF)


def test_unknown_keyword_value_leaves_the_environment_its_say(monkeypatch):
    """An unknown keyword value counts as unset: the variable applies."""
    monkeypatch.setenv(_settings.variable("asyncio"), "off")
    assert _settings.read(NAMES, {"asyncio": 7}).policies == only("asyncio", Policy.OFF)


def test_unknown_keyword_is_one_warning(caplog):
    """A keyword that is no setting is quoted in one warning that names the settings."""
    for _ in range(3):
        _settings.read(NAMES, {"thraeding": "off"})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'thraeding'" in record.getMessage()
    assert all(name in record.getMessage() for name in SETTINGS)


def test_unknown_variable_is_one_warning(monkeypatch, caplog):
    """A variable of our prefix that is no setting is named in one warning, with the settings."""
    monkeypatch.setenv(PREFIX + "THRAEDING", "off")
    for _ in range(3):
        _settings.read(NAMES, {})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert PREFIX + "THRAEDING" in record.getMessage()
    assert all(_settings.variable(name) in record.getMessage() for name in SETTINGS)


def test_two_mistakes_are_two_warnings(monkeypatch, caplog):
    """Each cause has its own warning."""
    monkeypatch.setenv(_settings.variable("sched"), "wrong")
    _settings.read(NAMES, {"futures": "wrong"})
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "keyword",
    [
        "tracer_provider",
        "meter_provider",
        "logger_provider",
        "event_logger_provider",
        "skip_dep_check",
    ],
)
def test_keywords_of_any_instrumentor_are_accepted(keyword, caplog):
    """What programs pass to every instrumentor alike is no mistake."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(**{keyword: True})
    instrumentor.uninstrument()
    assert not caplog.records


@pytest.mark.parametrize("word", ["link", "LINK"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEVER_LINKED])
def test_link_is_a_policy(name, word, read, caplog):
    """Of one primitive, whatever the default is."""
    settings = read(**{"policy": "off", name: word})
    assert settings.policies == only(name, Policy.LINK, default=Policy.OFF)
    assert not caplog.records


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(("given", "milliseconds"), [("0", 0), (" 1500 ", 1500), ("", None)])
def test_durations_are_in_milliseconds(name, given, milliseconds, read, caplog):
    """An integer; 0 is never, or not at all."""
    expected = DURATIONS[name] if milliseconds is None else milliseconds
    assert getattr(read(**{name: given}), name) == expected
    assert not caplog.records


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_as_keyword_is_a_number_and_beats_the_environment(name, monkeypatch):
    """It may be an int or what one would write into the environment."""
    monkeypatch.setenv(_settings.variable(name), "1")
    assert getattr(_settings.read(NAMES, {name: 2}), name) == 2
    assert getattr(_settings.read(NAMES, {}), name) == 1


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("digits", [15, 40, 5000])
def test_a_duration_of_any_length_is_one_that_a_thread_can_wait(name, digits, read, caplog):
    """Whoever wants it to be for ever may write as many digits as he likes."""
    given = "9" * digits
    milliseconds = getattr(read(**{name: given}), name)
    assert milliseconds > 10**9
    assert threading.Lock().acquire(timeout=milliseconds / 1000)
    assert getattr(_settings.read(NAMES, {name: 10**digits}), name) == milliseconds
    assert not caplog.records


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("garbage", ["-1", "1.5", "a minute", "1_000", True, 2.0, -3])
def test_garbage_for_a_duration_is_one_warning(name, garbage, caplog):
    """It is quoted, and the default applies."""
    for _ in range(2):
        assert getattr(_settings.read(NAMES, {name: garbage}), name) == DURATIONS[name]
    (record,) = caplog.records
    assert repr(garbage) in record.getMessage()
    assert "milliseconds" in record.getMessage()


@pytest.mark.parametrize(
    ("given", "truth"), [("true", True), (" TRUE ", True), ("false", False), ("", False)]
)
def test_metrics_are_true_or_false(given, truth, read, caplog):
    """In any case, with space around it; they are off by default."""
    assert read(metrics=given).metrics is truth
    assert not caplog.records


def test_metrics_as_keyword_is_a_boolean_and_beats_the_environment(monkeypatch):
    """It may be a bool or what one would write into the environment."""
    monkeypatch.setenv(_settings.variable("metrics"), "true")
    assert _settings.read(NAMES, {"metrics": False}).metrics is False
    assert _settings.read(NAMES, {}).metrics is True


@pytest.mark.parametrize("garbage", ["yes", 1, 0.0, "on"])
def test_garbage_for_metrics_is_one_warning(garbage, caplog):
    """It is quoted, and there are no metrics."""
    for _ in range(2):
        assert _settings.read(NAMES, {"metrics": garbage}).metrics is False
    (record,) = caplog.records
    assert repr(garbage) in record.getMessage()
    assert "true or false" in record.getMessage()


def test_excluded_is_comma_separated(read, caplog):
    """`excluded` is split at commas; space and empty parts are dropped."""
    assert read(excluded=" app.poll ,,app.Loop.*,").excluded == ("app.poll", "app.Loop.*")
    assert not caplog.records


@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys])
def test_excluded_keyword_takes_strings(kind, caplog):
    """The keyword `excluded` takes any iterable of strings, in its order."""
    assert _settings.read(NAMES, {"excluded": kind(["b", " a ", ""])}).excluded == ("b", "a")
    assert not caplog.records


def test_excluded_keyword_beats_environment(monkeypatch):
    """The keyword replaces the names of the variable; an empty list is an answer too."""
    monkeypatch.setenv(_settings.variable("excluded"), "from.environment")
    assert _settings.read(NAMES, {"excluded": "given"}).excluded == ("given",)
    assert _settings.read(NAMES, {"excluded": []}).excluded == ()
    assert _settings.read(NAMES, {"excluded": ""}).excluded == ("from.environment",)


@pytest.mark.parametrize("garbage", [7, b"bytes", [1, "a"], Policy.OFF, object])
def test_excluded_garbage_is_one_warning(garbage, monkeypatch, caplog):
    """What cannot be names is quoted in one warning and counts as unset."""
    monkeypatch.setenv(_settings.variable("excluded"), "from.environment")
    for _ in range(3):
        assert _settings.read(NAMES, {"excluded": garbage}).excluded == ("from.environment",)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert repr(garbage) in record.getMessage()


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(environment=st.dictionaries(st.sampled_from(SETTINGS), texts))
def test_no_variable_can_make_read_raise(environment):
    """Whatever is in the environment, reading gives every primitive a usable policy."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(_settings.variable(name), value)
        check(_settings.read(NAMES, {}))


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(keywords=st.dictionaries(st.sampled_from([*SETTINGS, "other"]), values))
def test_no_keyword_can_make_read_raise(keywords):
    """Whatever the keywords hold, reading gives every primitive a usable policy."""
    check(_settings.read(NAMES, keywords))


def check(settings):
    """Fail unless the settings can be used as they are."""
    assert set(settings.policies) == set(NAMES)
    assert set(settings.policies.values()) <= {*Policy}
    for name in DURATIONS:
        assert type(getattr(settings, name)) is int
        assert getattr(settings, name) >= 0
    assert all(isinstance(name, str) and name for name in settings.excluded)


@settings(deadline=None, max_examples=settings().max_examples // 2)
@given(
    environment=st.dictionaries(st.sampled_from(SETTINGS), texts),
    keywords=st.dictionaries(st.sampled_from(SETTINGS), values),
)
def test_no_setting_can_make_instrument_raise(environment, keywords):
    """Whatever is set, `instrument()` neither raises nor fails to be undone."""
    before = patched_names()
    instrumentor = ConcurrencyInstrumentor()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(_settings.variable(name), value)
        try:
            instrumentor.instrument(**keywords)
            assert _settings.in_force is not None, "it is not on"
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
        finally:
            instrumentor.uninstrument()
    assert not differences(before, patched_names())


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(
    environment=st.dictionaries(st.sampled_from([*SETTINGS, "other"]), texts),
    keywords=st.dictionaries(st.sampled_from([*SETTINGS, "other"]), values),
)
def test_there_is_one_warning_for_each_setting_at_most(environment, keywords):
    """Whatever is given, and however often it is read."""
    logged = Logged()
    logger = logging.getLogger("otel_concurrency")
    faults._reported.clear()
    logger.addHandler(logged)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(_settings.variable(name), value)
            for _ in range(3):
                _settings.read(NAMES, keywords)
    finally:
        logger.removeHandler(logged)
    assert {record.levelname for record in logged.records} <= {"WARNING"}
    assert len(logged.records) <= len(environment) + len(keywords)


class Logged(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        record.getMessage()
        self.records.append(record)


class Hostile:
    """A value that cannot even be looked at."""

    def __iter__(self):
        raise RuntimeError("iterated")

    def __str__(self):
        raise RuntimeError("shown")

    __repr__ = __str__


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_value_does_not_make_instrument_raise(name):
    """Also where a keyword's value raises when it is looked at, `instrument()` does not."""
    ConcurrencyInstrumentor().instrument(**{name: Hostile()})
    ConcurrencyInstrumentor().uninstrument()


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_value_is_one_warning_and_the_default(name, caplog):
    """It is ignored like any other that makes no sense."""
    assert _settings.read(NAMES, {name: Hostile()}) == _settings.read(NAMES, {})
    (record,) = caplog.records
    assert f"instrument({name}=...)" in record.getMessage()
    assert "Hostile object" in record.getMessage()


def patched_names(*names, but=()):
    """Return every attribute of the modules that primitives patch, and of their classes.

    Those of modules that the primitives in ``but`` patch, too, are left out.
    """
    attributes = {}
    shared = {module for name in but for module in _primitives.modules_of(name)}
    for name in names or NAMES:
        for module_name in _primitives.modules_of(name):
            if module_name in shared:
                continue
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError:  # this version of Python does not have it
                continue
            owners = [module, *(cls for cls in vars(module).values() if isinstance(cls, type))]
            for owner in owners:
                for attribute, value in vars(owner).items():
                    attributes[module_name, owner.__name__, attribute] = value
    return attributes


def differences(before, after):
    """Return the names whose values are not the identical objects."""
    return {
        name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["keyword", "environment"])
def test_off_is_not_patched_at_all(name, source, monkeypatch):
    """A primitive that is `off` is left exactly as it is, while the others are patched."""
    others = [other for other in NAMES if other != name]
    before = patched_names(name, but=others)
    others_before = patched_names(*others)
    if source == "environment":
        monkeypatch.setenv(_settings.variable(name), "off")
    ConcurrencyInstrumentor().instrument(**({name: "off"} if source == "keyword" else {}))
    try:
        assert not differences(before, patched_names(name, but=others))
        assert differences(others_before, patched_names(*others))
    finally:
        ConcurrencyInstrumentor().uninstrument()


@pytest.mark.parametrize("name", NAMES)
def test_on_is_patched(name):
    """A primitive that is on is patched, so that the test of `off` can fail."""
    ConcurrencyInstrumentor().instrument(**{name: "parent"})
    try:
        during = patched_names(name)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert differences(during, patched_names(name))


def test_every_setting_has_its_variable():
    """Every setting has a constant, and there are no other ones."""
    named = {_settings.variable(name) for name in SETTINGS}
    at_import = map(_settings.variable, AT_IMPORT)
    assert set(CONSTANTS) == {*named, *at_import, variables.OTEL_PYTHON_CONCURRENCY}


def test_the_short_variable_is_the_policy_of_all(monkeypatch):
    """It counts where the long one is not set, or not valid."""
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY", "off")
    assert set(_settings.read(NAMES, {}).policies.values()) == {Policy.OFF}
    assert _settings.read(NAMES, {}).sources["policy"] == "OTEL_PYTHON_CONCURRENCY"
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_POLICY", "link")
    assert _settings.read(NAMES, {}).policies["queue"] is Policy.LINK


def test_every_variable_is_a_documented_literal():
    """Each constant is the literal of its own name, with a docstring that gives its default."""
    body = ast.parse(Path(variables.__file__).read_text(encoding="utf-8")).body[1:]
    assert len(body) == 2 * len(CONSTANTS)
    for assignment, docstring in zip(body[::2], body[1::2], strict=True):
        name = assignment.targets[0].id
        assert assignment.value.value == name
        assert f".. envvar:: {name}\n" in docstring.value.value
        assert "\nDefault: " in docstring.value.value


@pytest.fixture(scope="module")
def flags():
    """Return the flags that a real `opentelemetry-instrument` has."""
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    shown = subprocess.run(
        [command, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert not shown.stderr
    return set(re.findall(r"--(\w+)", shown.stdout))


@pytest.mark.parametrize("constant", CONSTANTS)
def test_every_variable_is_a_flag(constant, flags):
    """Each variable is also a flag of `opentelemetry-instrument`."""
    assert constant.removeprefix("OTEL_PYTHON_").lower() in flags


def test_every_setting_is_a_keyword_that_type_checkers_know():
    """The typed keywords are the settings, and what every instrumentor is given."""
    tree = ast.parse(Path(_settings.__file__).read_text(encoding="utf-8"))
    (keywords,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == "Keywords"
    ]
    names = {node.target.id for node in keywords.body if isinstance(node, ast.AnnAssign)}
    of_any = {"skip_dep_check", "raise_exception_on_conflict"} | {
        f"{signal}_provider" for signal in ("tracer", "meter", "logger")
    }
    assert names == {*SETTINGS, *of_any}
