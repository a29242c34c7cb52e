"""Programs that are configured by a file: the library's section, and processes without propagators.

With the real ``opentelemetry-configuration``, in real processes under ``opentelemetry-instrument``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from schema import json_schema

from otel_concurrency import ConcurrencyInstrumentor, Policy, _configuration, _primitives, _settings
from otlp_receiver import Receiver
from programs import APPS, REPOSITORY

SCRIPTS = Path(sysconfig.get_path("scripts"))
DEADLINE = 110

PROPAGATORS = {
    "no propagator": "",
    "none": "propagator: {composite_list: none}",
    "b3": "propagator: {composite: [{b3multi: {}}]}",
    "the default ones": "propagator: {composite: [{tracecontext: {}}, {baggage: {}}]}",
    "a vendor's": "propagator: {composite: [{vendor: {}}]}",
}

VENDOR = """
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter

class Vendor(TextMapPropagator):
    fields = {"vendor"}

    def inject(self, carrier, context=None, setter=default_setter):
        setter.set(carrier, "vendor", "key")

    def extract(self, carrier, context=None, getter=default_getter):
        return context
"""

IN_FORCE = """
import json
from otel_concurrency import _settings
settings = _settings.in_force
print(json.dumps(settings and {**settings.as_keywords(), "sources": dict(settings.sources)}))
"""


@pytest.fixture
def configured(tmp_path):
    """Return what runs a command with a configuration file; it returns the output and the log."""

    def run(command, section=None, rest="", variable="OTEL_CONFIG_FILE", **environment):
        lines = ['file_format: "1.0"', rest]
        if section is not None:
            lines += ["instrumentation/development:", "  python:", f"    concurrency: {section}"]
        file = tmp_path / "configuration.yaml"
        file.write_text("\n".join(lines), encoding="utf-8")
        instrumentors = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "PYTHON"))
        }
        kept |= {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(tmp_path),
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(instrumentors - {"concurrency"}),
            variable: str(file),
        }
        finished = subprocess.run(
            command, env=kept | environment, capture_output=True, text=True, timeout=DEADLINE
        )
        assert finished.returncode == 0, finished.stderr
        log = [line for line in finished.stderr.splitlines() if "configurator kwargs" not in line]
        return finished.stdout, log

    return run


@pytest.fixture
def settings(configured, tmp_path):
    """Return what tells the settings in force under ``opentelemetry-instrument``, and the log."""
    program = tmp_path / "program.py"
    program.write_text(IN_FORCE, encoding="utf-8")

    def read(section, **environment):
        command = [SCRIPTS / "opentelemetry-instrument", sys.executable, program]
        output, log = configured(command, section, **environment)
        return json.loads(output), log

    return read


# --- what the section says ---


def test_false_is_off(settings):
    """YAML reads the word `off` as a boolean, which means the same here."""
    in_force, log = settings("{queue: off}")
    assert (in_force["queue"], in_force["threading"], log) == ("off", "parent", [])


def test_true_is_the_default(settings):
    """A primitive that is `true` has the default policy; one that is off by default is on."""
    in_force, log = settings("{policy: link, queue: true, subprocess: true, sched: false}")
    assert in_force["queue"] == in_force["subprocess"] == "link"
    assert (in_force["sched"], log) == ("off", [])


def test_true_is_on_where_the_default_is_off(settings):
    """With `policy: off` a primitive that is `true` is the only one that is on."""
    in_force, _ = settings("{policy: off, queue: true}")
    assert (in_force["queue"], in_force["threading"]) == ("parent", "off")


def test_a_disabled_library_is_off(settings):
    """`enabled: false` holds, though the loader of instrumentors does not read the file."""
    assert settings("{enabled: false, queue: link}") == (None, [])


def test_an_enabled_library_is_switched_on_once(settings):
    """The loader's call, which comes second, is silent and changes nothing."""
    in_force, log = settings("{link_after: 1000}")
    assert (in_force["link_after"], log) == (1000, [])


def test_numbers_may_be_text_and_lists_may_be_lists(settings):
    """Both ways in which a file may have them are taken."""
    in_force, log = settings('{link_after: "1000", excluded: [a.b, c], adapters: [anyio, trio]}')
    assert log == []
    assert in_force["link_after"] == 1000
    assert in_force["excluded"] == ["a.b", "c"]
    assert in_force["adapters"] == ["anyio", "trio"]


def test_what_is_wrong_is_quoted_once_and_the_rest_applies(settings):
    """Unknown keys and values are reported in the user's own words."""
    in_force, log = settings("{quue: off, threading: lnk, sched: off}")
    assert (in_force["sched"], in_force["queue"], in_force["threading"]) == (
        "off",
        "parent",
        "parent",
    )
    assert len(log) == 2
    assert "'quue' in the section 'concurrency'" in log[0]
    assert "threading in the configuration file got 'lnk'" in log[1]


def test_the_file_beats_the_environment(settings):
    """Setting by setting: what the file does not set, the environment may."""
    in_force, log = settings(
        "{queue: link}",
        OTEL_PYTHON_CONCURRENCY_QUEUE="off",
        OTEL_PYTHON_CONCURRENCY_SCHED="off",
    )
    assert (in_force["queue"], in_force["sched"], log) == ("link", "off", [])
    assert in_force["sources"] == {
        "queue": "queue in the configuration file",
        "sched": "OTEL_PYTHON_CONCURRENCY_SCHED",
    }


def test_without_the_section_the_environment_holds(settings):
    """A file that does not speak of the library changes nothing about it."""
    in_force, log = settings(None, OTEL_PYTHON_CONCURRENCY_QUEUE="off")
    assert (in_force["queue"], in_force["threading"], log) == ("off", "parent", [])


def test_a_file_that_cannot_be_read_is_the_sdks_to_report(monkeypatch, tmp_path, caplog):
    """The library itself says nothing about it, and does as without a file."""
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(tmp_path / "missing.yaml"))
    assert (_configuration.section(), _configuration.keywords()) == (None, {})
    assert not _configuration.is_disabled()
    assert not [each for each in caplog.records if each.name.startswith("otel_concurrency")]


def test_the_programs_own_call_stands(monkeypatch, tmp_path):
    """A program that switches the library on in its code has it, as with any instrumentor."""
    file = tmp_path / "configuration.yaml"
    file.write_text(
        'file_format: "1.0"\ninstrumentation/development: '
        "{python: {concurrency: {enabled: false}}}",
        encoding="utf-8",
    )
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(skip_dep_check=True)
    assert not instrumentor.is_instrumented_by_opentelemetry
    instrumentor.instrument()
    assert instrumentor.is_instrumented_by_opentelemetry
    instrumentor.uninstrument()


def test_a_second_call_with_other_settings_is_not_silent(instrumented, caplog):
    """What it asks for is not done, and OpenTelemetry's warning says so."""
    instrumented.instrument(queue="parent")
    assert not caplog.records
    instrumented.instrument(queue="off")
    assert [record.getMessage() for record in caplog.records] == [
        "Attempting to instrument while already instrumented"
    ]


def test_the_section_has_a_key_for_every_keyword():
    """A setting that is added to the keywords is added to the section."""
    keywords = _settings.read(_primitives.NAMES, {}).as_keywords()
    assert {*keywords, "policy"} == {*_configuration.known_keys()}


def test_every_field_is_unset_by_default():
    """A key that is not in the file leaves the keyword to its default."""
    given = _configuration.Configuration()
    assert {each.name for each in fields(given) if getattr(given, each.name) is not None} == {
        _settings.DECLARED
    }


def test_the_schema_in_the_documentation_is_that_of_the_code():
    """`python tests/configuration/schema.py` writes it."""
    written = (REPOSITORY / "docs" / "configuration.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == json_schema()


@pytest.mark.parametrize("policy", [*Policy])
def test_the_schema_has_every_policy(policy):
    """An editor that knows the schema proposes the words that are taken."""
    assert policy.value in json.dumps(json_schema()["properties"]["queue"])


# --- status ---


def status(configured, section, **environment):
    """Return what the command shows of this environment."""
    command = [sys.executable, "-m", "otel_concurrency", "status"]
    return configured(command, section, COLUMNS="140", **environment)[0]


def test_status_says_that_the_file_disables_the_library(configured):
    """Somebody who wonders why nothing is carried finds the reason."""
    shown = status(configured, "{enabled: false}")
    assert "The library is off, by the configuration file (enabled: false)." in shown


def test_status_says_which_of_the_two_has_set_what(configured):
    """Of each setting it names the key of the file, or the variable."""
    shown = status(configured, "{queue: link}", OTEL_PYTHON_CONCURRENCY_SCHED="off")
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "queue in the configuration file" in rows["queue"]
    assert "OTEL_PYTHON_CONCURRENCY_SCHED" in rows["sched"]


# --- processes ---


@pytest.fixture
def vendor(tmp_path):
    """Install a propagator of a vendor's."""
    (tmp_path / "vendor_propagator.py").write_text(VENDOR, encoding="utf-8")
    information = tmp_path / "vendor_propagator-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: vendor-propagator\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[opentelemetry_propagator]\nvendor = vendor_propagator:Vendor\n"
    )


def handed_off(configured, method, order, propagators, section=None):
    """Run the program; return what its work saw, the spans that were received, and the log."""
    with Receiver() as receiver:
        exporter = f"{{otlp_http: {{endpoint: {receiver.endpoint}/v1/traces}}}}"
        rest = (
            f"tracer_provider: {{processors: [{{batch: {{exporter: {exporter}}}}}]}}\n{propagators}"
        )
        command = [sys.executable, APPS / "configured.py", method, order]
        variable = "CONFIGURED_BY"
        if order == "loader":
            command.insert(0, SCRIPTS / "opentelemetry-instrument")
            variable = "OTEL_CONFIG_FILE"
        output, log = configured(command, section, rest, variable)
    assert receiver.faults == []
    return json.loads(output), receiver.spans, log


@pytest.mark.parametrize("propagators", PROPAGATORS.values(), ids=PROPAGATORS)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.scale
def test_work_in_processes_is_a_child_whatever_the_propagators(
    configured, vendor, method, propagators
):
    """The file says how the program talks to other services, not to its own processes."""
    seen, spans, log = handed_off(configured, method, "loader", propagators)
    parent = [seen.pop("span"), "acme"]
    assert seen == dict.fromkeys(("queue", "process", "pool", "executor"), parent)
    assert sorted(span.name for span in spans) == ["request", *["work"] * 4]
    assert log == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("order", ["loader", "first", "last"])
def test_work_in_processes_is_a_child_without_a_propagator(configured, method, order):
    """Whoever configures the SDK by the file, and before or after the library is switched on."""
    seen, _, _ = handed_off(configured, method, order, PROPAGATORS["no propagator"])
    parent = [seen.pop("span"), "acme"]
    assert seen == dict.fromkeys(("queue", "process", "pool", "executor"), parent)


def test_children_read_the_file_again(configured):
    """Spans of spawned children are exported by what the file configures; nothing is logged."""
    _, spans, log = handed_off(configured, "spawn", "loader", "", "{link_after: 1000}")
    assert sorted(span.name for span in spans) == ["request", *["work"] * 4]
    assert log == []


def test_trace_shows_a_program_that_is_configured_by_a_file(configured, tmp_path):
    """The observer's provider stands beside the file's."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "otel_concurrency", "trace", "--json", report, "--"]
    with Receiver() as receiver:
        exporter = f"{{otlp_http: {{endpoint: {receiver.endpoint}/v1/traces}}}}"
        configured(
            [*command, sys.executable, APPS / "configured.py", "spawn", "loader"],
            "{link_after: 1000}",
            f"tracer_provider: {{processors: [{{batch: {{exporter: {exporter}}}}}]}}",
        )
    names = sorted(span["name"] for span in json.loads(report.read_text())["spans"])
    assert names == sorted(span.name for span in receiver.spans) == ["request", *["work"] * 4]
