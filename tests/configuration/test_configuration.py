"""Programs that are configured by a file: the library's section, and processes without propagators.

With the real ``opentelemetry-configuration``, in real processes under ``opentelemetry-instrument``.
"""

from __future__ import annotations

import functools
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

WORK = (
    "queue",
    "process",
    "process started anew",
    "pool",
    "first worker",
    "restarted worker",
    "executor",
)
"""The ways in which the program hands work to processes."""

EXPORTED = ["request", *["work"] * len(WORK)]

MUTE = """
tracer_provider:
  processors: [{simple: {exporter: {console: {}}}}]
  sampler: {always_off: {}}
"""
"""A part of a file by which no span is exported."""

IN_FORCE = """
import json, os, sys
from otel_concurrency import ConcurrencyInstrumentor, _settings

def configure():
    from opentelemetry.configuration import configure_sdk, load_config_file
    configure_sdk(load_config_file(os.environ["CONFIGURED_BY"]))

instrument = ConcurrencyInstrumentor().instrument
for step in {"loader": (), "first": (configure, instrument), "last": (instrument, configure)}[
    sys.argv[1]
]:
    step()
settings = _settings.in_force
print(json.dumps(settings and {**settings.as_keywords(), "sources": dict(settings.sources)}))
"""

COMMAND = """
import os, subprocess, sys
from opentelemetry import trace
names = ("TRACEPARENT", "X_B3_TRACEID")
show = f"import os; print(*[name for name in {names} if name in os.environ])"
with trace.get_tracer("commands").start_as_current_span("request"):
    subprocess.run([sys.executable, "-I", "-S", "-c", show], check=True)
"""

TEST = """
import threading
from opentelemetry import trace
from otel_concurrency import _settings

tracer = trace.get_tracer(__name__)

def test_it(spans):
    assert _settings.in_force.policies["queue"].value == "off"
    with tracer.start_as_current_span("request"):
        thread = threading.Thread(target=lambda: tracer.start_span("work").end())
        thread.start()
        thread.join()
    spans.assert_connected()
    assert {span.name for span in spans} == {"request", "work"}
"""

DEMO = """
import sys
from otel_concurrency._cli import main
print(main(["demo"]))
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
def settings_of(configured, tmp_path):
    """Return what tells the settings in force and the log, by who configures the SDK and when."""
    program = tmp_path / "program.py"
    program.write_text(IN_FORCE, encoding="utf-8")

    def read(order, section, **environment):
        command, variable = [sys.executable, program, order], "CONFIGURED_BY"
        if order == "loader":
            command.insert(0, SCRIPTS / "opentelemetry-instrument")
            variable = "OTEL_CONFIG_FILE"
        output, log = configured(command, section, variable=variable, **environment)
        return json.loads(output), log

    return read


@pytest.fixture(params=["loader", "first"])
def settings(request, settings_of):
    """Return what tells the settings under the loader, and where the program configures first."""
    return functools.partial(settings_of, request.param)


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


def test_a_disabled_library_is_off(settings_of):
    """`enabled: false` holds, though the loader of instrumentors does not read the file."""
    assert settings_of("loader", "{enabled: false, queue: link}") == (None, [])


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_disabled_library_is_on_where_the_program_asks_for_it(settings_of, order):
    """The program's own call to `instrument()` stands, without the settings of the section."""
    in_force, log = settings_of(order, "{enabled: false, queue: link}")
    assert (in_force["queue"], log) == ("parent", [])


def test_a_file_that_comes_after_switching_on_changes_no_setting(settings_of):
    """The package leaves an instrumentor alone that is already on; the environment holds."""
    in_force, log = settings_of(
        "last", "{queue: off, sched: link}", OTEL_PYTHON_CONCURRENCY_SCHED="off"
    )
    assert (in_force["queue"], in_force["sched"], log) == ("parent", "off", [])


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
        command = [sys.executable, APPS / "configured.py", method, order]
        variable = "CONFIGURED_BY"
        if order == "loader":
            command.insert(0, SCRIPTS / "opentelemetry-instrument")
            variable = "OTEL_CONFIG_FILE"
        rest = f"{exporting_to(receiver)}\n{propagators}"
        output, log = configured(command, section, rest, variable)
    assert receiver.faults == []
    return json.loads(output), receiver.spans, log


def exporting_to(receiver):
    """Return the part of a file that has spans exported to ``receiver``."""
    exporter = f"{{otlp_http: {{endpoint: {receiver.endpoint}/v1/traces}}}}"
    return f"tracer_provider: {{processors: [{{batch: {{exporter: {exporter}}}}}]}}"


def seen_everywhere(parent):
    """Return what each piece of work has seen if it was ``parent``, in its form."""
    return dict.fromkeys(WORK, parent)


def names(spans):
    """Return the names of spans in their order."""
    return sorted(span.name for span in spans)


methods = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])


@pytest.mark.parametrize(
    ("method", "propagators"),
    [
        # Each child that is spawned reads the file, which takes a second.
        *(("fork", each) for each in PROPAGATORS),
        *(("forkserver", each) for each in PROPAGATORS),
        ("spawn", "a vendor's"),
    ],
)
@pytest.mark.scale
def test_work_in_processes_is_a_child_whatever_the_propagators(
    configured, vendor, method, propagators
):
    """The file says how the program talks to other services, not to its own processes."""
    seen, spans, log = handed_off(configured, method, "loader", PROPAGATORS[propagators])
    assert seen == seen_everywhere([seen.pop("span"), "acme"])
    assert names(spans) == EXPORTED
    assert log == []


@methods
@pytest.mark.parametrize("order", ["loader", "first", "last"])
def test_work_in_processes_is_a_child_without_a_propagator(configured, method, order):
    """Whoever configures the SDK by the file, and before or after the library is switched on.

    Where the program does it, only the processes that are forked from it know the exporter.
    """
    seen, spans, log = handed_off(configured, method, order, PROPAGATORS["no propagator"])
    assert seen == seen_everywhere([seen.pop("span"), "acme"])
    assert names(spans) == (EXPORTED if order == "loader" or method == "fork" else ["request"])
    assert log == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_work_in_processes_is_a_child_with_propagators_off_in_the_environment(configured, method):
    """`OTEL_PROPAGATORS=none`, without a file, is about other services too."""
    with Receiver() as receiver:
        output, log = configured(
            [
                SCRIPTS / "opentelemetry-instrument",
                sys.executable,
                APPS / "configured.py",
                method,
                "loader",
            ],
            variable="NOT_CONFIGURED_BY",
            OTEL_PROPAGATORS="none",
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        )
    seen = json.loads(output)
    assert seen == seen_everywhere([seen.pop("span"), "acme"])
    assert names(receiver.spans) == EXPORTED
    assert log == []


def test_children_read_the_file_again(configured):
    """Spans of children, restarted ones among them, go where the file says; nothing is logged."""
    _, spans, log = handed_off(configured, "spawn", "loader", "", "{link_after: 1000}")
    assert names(spans) == EXPORTED
    assert log == []


@methods
def test_a_library_that_the_file_disables_is_off_in_children(configured, method):
    """Under each start method no work has a parent, except in a fork of the parent itself."""
    seen, _, log = handed_off(configured, method, "loader", "", "{enabled: false}")
    inherited = [seen.pop("span"), "acme"]
    none = [f"{0:032x} {0:016x}", None]
    forked = {"process", "process started anew", "pool", "first worker", "executor"}
    assert seen == {
        name: inherited if method == "fork" and name in forked else none for name in WORK
    }
    assert log == []


@pytest.mark.parametrize(
    ("propagators", "variables"),
    [("no propagator", []), ("b3", ["X_B3_TRACEID"]), ("the default ones", ["TRACEPARENT"])],
)
def test_a_command_gets_what_the_configured_propagators_say(
    configured, tmp_path, propagators, variables
):
    """Other programs read its environment, so W3C headers are there only if they are configured."""
    program = tmp_path / "program.py"
    program.write_text(COMMAND, encoding="utf-8")
    output, log = configured(
        [SCRIPTS / "opentelemetry-instrument", sys.executable, program],
        "{subprocess: true}",
        f"{MUTE}\n{PROPAGATORS[propagators]}",
    )
    assert (output.split(), log) == (variables, [])


# --- what looks at a program ---


@methods
def test_trace_shows_a_program_that_is_configured_by_a_file(configured, tmp_path, method):
    """The observer's provider stands beside the file's."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "otel_concurrency", "trace", "--json", report, "--"]
    with Receiver() as receiver:
        configured(
            [*command, sys.executable, APPS / "configured.py", method, "loader"],
            "{link_after: 1000}",
            exporting_to(receiver),
        )
    shown = sorted(span["name"] for span in json.loads(report.read_text())["spans"])
    assert shown == names(receiver.spans) == EXPORTED


def test_the_pytest_plugin_sees_what_a_file_has_exported(configured, tmp_path):
    """The fixture watches the spans of the file's provider, which exports them all the same."""
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    with Receiver() as receiver:
        output, log = configured(
            [
                SCRIPTS / "opentelemetry-instrument",
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-p", "no:ddtrace", tmp_path),
            ],
            "{queue: off}",
            exporting_to(receiver),
        )
    assert "1 passed" in output
    assert names(receiver.spans) == ["request", "work"]
    assert log == []


@pytest.mark.parametrize("section", ["{queue: off}", "{enabled: false, queue: off}"])
def test_the_demo_has_the_settings_of_the_file(configured, section):
    """The service is what it is elsewhere: the file does not configure its SDK."""
    output, log = configured([sys.executable, "-c", DEMO], section, MUTE)
    assert output.splitlines()[-1] == "1"
    assert "these spans lost their context: send_receipt." in "".join(log)
    assert '"queue": false' in "".join(log)


def test_the_demo_keeps_its_context_under_a_file(configured):
    """It has status 0 whatever the file says about exporters, sampling and propagators."""
    output, log = configured(
        [sys.executable, "-m", "otel_concurrency", "demo"],
        "{link_after: 1000}",
        MUTE,
    )
    assert "library on" in output
    assert log == []
