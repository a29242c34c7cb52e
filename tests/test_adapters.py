"""The frame of the adapters: which are switched on, when they patch, and what if they cannot.

What each of them carries is tested in ``tests/adapters``, against the library itself.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from otel_concurrency import ConcurrencyInstrumentor, Policy, _adapters, _primitives, _settings

KNOWN = ("one", "two", "three")
VARIABLE = "OTEL_PYTHON_CONCURRENCY_ADAPTERS"


@pytest.fixture(params=["keyword", "environment"])
def chosen(request, monkeypatch):
    """Return a function that tells which of the known adapters some words choose."""
    monkeypatch.delenv(VARIABLE, raising=False)

    def choose(words):
        given = {}
        if request.param == "keyword":
            given["adapters"] = words
        else:
            monkeypatch.setenv(VARIABLE, words)
        return _settings.read(_primitives.NAMES, given, KNOWN).adapters

    return choose


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", KNOWN),
        ("*", KNOWN),
        ("two", ("two",)),
        (" TWO , one", ("one", "two")),
        ("-two", ("one", "three")),
        ("*, -two, -three", ("one",)),
        ("-*", ()),
        ("-*, three", ("three",)),
        ("one, -one", ()),
    ],
)
def test_adapters_are_chosen_by_name(words, expected, chosen, caplog):
    """A name is taken, all are by `*`, and what has a minus in front is left out."""
    assert chosen(words) == expected
    assert not caplog.records


@pytest.mark.parametrize(
    ("words", "expected"),
    [("four", KNOWN), ("four,one", ("one",)), ("-four", KNOWN), ("two,-fuor,four", ("two",))],
)
def test_an_unknown_name_is_one_warning_that_lists_the_known_ones(words, expected, chosen, caplog):
    """The words are quoted, and the others hold."""
    assert chosen(words) == expected
    chosen(words)
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert "'four'" in message or "'-four'" in message
    assert all(name in message for name in KNOWN)


def test_adapters_can_be_given_as_strings():
    """The keyword takes several strings as well."""
    read = _settings.read(_primitives.NAMES, {"adapters": ["three", "one"]}, KNOWN)
    assert read.adapters == ("one", "three")


@pytest.mark.parametrize("words", ["*", "-*", "gevent"])
def test_what_was_chosen_is_what_a_child_process_is_given(words):
    """Settings that are read from their own keywords are the same."""
    read = _settings.read(_primitives.NAMES, {"adapters": words}, _adapters.ADAPTERS)
    again = _settings.read(_primitives.NAMES, read.as_keywords(), _adapters.ADAPTERS)
    assert again == read


# --- when they patch ---


def run(program, path="", **environment):
    """Run a program in a process of its own; return what it printed, as JSON, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**_without_settings(), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _without_settings():
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


ON = "from otel_concurrency import ConcurrencyInstrumentor as I\nI().instrument()\n"


def test_what_is_not_imported_costs_nothing():
    """Switching on imports no library, no adapter, and looks for none of them."""
    program = f"""
import json
asked = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        asked.append(name)
sys.meta_path.insert(0, Finder())
{ON}
libraries = {[*_adapters.ADAPTERS]!r}
print(json.dumps({{
    "asked": [name for name in asked if name.split(".")[0] in libraries],
    "adapters": [name for name in sys.modules if name.startswith("otel_concurrency._adapters.")],
}}))
"""
    assert run(program)[0] == {"asked": [], "adapters": []}


def library(tmp_path, source):
    """Make a package that is called like a library."""
    package = tmp_path / "gevent"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    return tmp_path


TELL = """
import json, gevent
from otel_concurrency import _instrumentor
parts = _instrumentor.adapters_in_use.values()
print(json.dumps([sorted(part.failures) for part in parts if part.failures]))
"""


@pytest.mark.parametrize("first", [ON, "import gevent\n" + ON], ids=["on first", "imported first"])
def test_a_version_without_its_seams_is_left_alone_with_one_line(first, tmp_path):
    """The log says which version it is and which were tested; the program's import works."""
    path = library(tmp_path, "answer = 42\n")
    failures, log = run(first + TELL + "assert gevent.answer == 42", path)
    assert failures
    lines = [line for line in log.splitlines() if "is left alone" in line]
    assert len(lines) == len(failures)
    assert "gevent cannot be patched (AttributeError" in log
    assert " to ".join(_adapters.tested("gevent")) in lines[0]
    assert "Traceback" not in log


def test_where_one_library_cannot_be_patched_the_primitive_works(tmp_path):
    """Threads carry on, whatever gevent is."""
    program = f"""{ON}
import json, threading, gevent
from opentelemetry import context
context.attach(context.set_value("key", "value"))
seen = []
thread = threading.Thread(target=lambda: seen.append(context.get_value("key")))
thread.start(); thread.join()
print(json.dumps(seen))
"""
    assert run(program, library(tmp_path, ""))[0] == ["value"]


@pytest.mark.parametrize(
    "environment",
    [
        {VARIABLE: "-gevent"},
        {f"OTEL_PYTHON_CONCURRENCY_{name}": "off" for name in ("THREADING", "FUTURES", "QUEUE")},
    ],
    ids=["by its name", "by the policies"],
)
def test_what_is_left_out_is_not_touched(environment, tmp_path):
    """Neither is it patched nor is its adapter loaded."""
    program = ON + "import json, gevent\nprint(json.dumps([*sys.modules]))"
    modules, log = run(program, library(tmp_path, ""), **environment)
    assert not log
    assert "otel_concurrency._adapters._gevent" not in modules


def test_what_is_imported_after_the_library_is_switched_off_is_left_alone(tmp_path):
    """An import hook that cannot be taken back does nothing."""
    program = ON + "I().uninstrument()\nimport json, gevent\nprint(json.dumps([*sys.modules]))"
    modules, log = run(program, library(tmp_path, ""))
    assert not log
    assert "otel_concurrency._adapters._gevent" not in modules


def test_settings_in_force_tell_of_the_adapters(instrumented):
    """Whoever asks is told what is on."""
    assert _settings.in_force.adapters == tuple(_adapters.ADAPTERS)
    assert _settings.in_force.policies["threading"] is Policy.PARENT
    assert ConcurrencyInstrumentor().is_instrumented_by_opentelemetry
