"""``otel-concurrency status``: what it tells of this environment, and of real programs."""

from __future__ import annotations

import functools
import io
import json
import queue
import sys
import threading
import types
from importlib.metadata import version
from pathlib import Path

import pytest
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from rich.console import Console

from commands import command
from otel_concurrency import ConcurrencyInstrumentor, _primitives, _settings
from otel_concurrency._cli import status as status_verb
from otel_concurrency._core.patching import Layer, apply_all, undo_all
from otel_concurrency._generators import monitoring
from otel_concurrency._status import neighbours, otlp, snapshot

README = Path(__file__).parents[2] / "README.md"


def status(*arguments, **variables):
    """Run the command; return what it tells, as plain data, and how it has ended."""
    result = command("status", "--json", *arguments, **variables)
    printed = result.stdout[result.stdout.index("{\n") :]
    return json.loads(printed), result


def of(told, name):
    """Return what is told of one primitive."""
    (found,) = (each for each in told["primitives"] if each["name"] == name)
    return found


@pytest.fixture
def program(tmp_path):
    """Return what writes a program, and returns the command that runs it."""

    def write(text):
        path = tmp_path / "program.py"
        path.write_text(text)
        return "--", sys.executable, str(path)

    return write


@pytest.fixture
def told(instrumented):
    """Return what tells how things stand here, of one primitive."""
    return lambda name: of(snapshot.state_of_process(), name)


def test_it_tells_what_would_be_patched_here():
    """Every primitive that is on by default, on this very Python, with the versions in use."""
    told, result = status()
    assert (result.returncode, result.stderr) == (0, "")
    assert [each["name"] for each in told["primitives"]] == [*_primitives.NAMES]
    for each in told["primitives"]:
        assert (each["failures"], each["set_by"]) == ({}, None)
        if each["name"] != "generators" or monitoring.IS_THERE:
            assert each["remarks"] == []
        assert bool(each["patched"]) == (each["policy"] == "parent")
    assert of(told, "subprocess")["policy"] == "off"
    assert told["versions"]["otel-concurrency"] == version("otel-concurrency")
    assert all(told["versions"].values())
    assert "opentelemetry-instrumentation-threading" in told["installed"]


@pytest.mark.parametrize("pure", [True, False])
def test_it_tells_whether_the_compiled_part_is_in_use(pure):
    """It says which of the two runs, and why it is not the compiled one."""
    variable = "OTEL_PYTHON_CONCURRENCY_PURE_PYTHON"
    result = command("status", **{variable: str(pure).lower()}, COLUMNS="120")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    is_compiled = "Hand-offs run the compiled part." in lines
    reasons = [line for line in lines if line.startswith("Hand-offs run in pure Python:")]
    assert len(reasons) == (not is_compiled)
    if pure:
        assert reasons == [f"Hand-offs run in pure Python: {variable} is set."]


def test_a_library_that_warns_when_it_is_imported_warns_nobody_here(tmp_path):
    """It is imported to be asked about, which is no use of it."""
    package, installed = tmp_path / "gevent", tmp_path / "gevent-1.0.dist-info"
    package.mkdir()
    (package / "__init__.py").write_text("import warnings; warnings.warn('do not use me')")
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: gevent\nVersion: 1.0\n")
    told, result = status(PYTHONPATH=str(tmp_path))
    assert "do not use me" not in result.stderr
    assert "gevent 1.0 is left alone" in "".join(told["warnings"])


def test_it_tells_where_policies_were_set():
    """By a variable of its own, by that of all, or by nobody."""
    told, _ = status(
        OTEL_PYTHON_CONCURRENCY_POLICY="link",
        OTEL_PYTHON_CONCURRENCY_QUEUE="off",
        OTEL_PYTHON_CONCURRENCY_LINK_AFTER="5",
    )
    assert (of(told, "queue")["policy"], of(told, "queue")["set_by"]) == (
        "off",
        "OTEL_PYTHON_CONCURRENCY_QUEUE",
    )
    assert (of(told, "sched")["policy"], of(told, "sched")["set_by"]) == (
        "link",
        "OTEL_PYTHON_CONCURRENCY_POLICY",
    )
    assert (of(told, "subprocess")["policy"], of(told, "subprocess")["set_by"]) == ("off", None)
    settings = {each["name"]: each for each in told["settings"]}
    assert settings["link_after"]["value"] == "5 ms"
    assert settings["link_after"]["set_by"] == "OTEL_PYTHON_CONCURRENCY_LINK_AFTER"
    assert settings["metrics"]["set_by"] is None


def test_a_keyword_is_a_source_too(monkeypatch):
    """It is named as it is written in the program; what was not valid is no source."""
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_SCHED", "nonsense")
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_QUEUE", "off")
    settings = _settings.read(_primitives.NAMES, {"queue": "link", "metrics": True})
    assert settings.sources == {
        "queue": "instrument(queue=...)",
        "metrics": "instrument(metrics=...)",
    }


def test_it_tells_of_a_program_what_was_patched_there(program):
    """What it has imported is patched, the rest waits; its own output and status are its own."""
    command_line = program("import queue, sys\nprint('of the program')\nsys.exit(3)\n")
    told, result = status(*command_line, OTEL_PYTHON_CONCURRENCY_QUEUE="link")
    assert result.returncode == 3
    assert result.stdout.startswith("of the program\n")
    assert told["on"]
    assert "queue" in of(told, "queue")["patched"]
    assert of(told, "queue")["policy"] == "link"
    assert of(told, "sched")["patched"] == []
    assert "sched" in of(told, "sched")["not_imported"]  # and tkinter, where Python comes with it
    active = {each["name"]: each["active"] for each in told["neighbours"]}
    assert active["opentelemetry-instrumentation-threading"] is True


@pytest.fixture
def installed(monkeypatch):
    """Return what makes exporters of OTLP the installed ones, for all signals."""

    def install(*names):
        found = [types.SimpleNamespace(name=name) for name in names]
        monkeypatch.setattr(otlp, "entry_points", lambda group: found)

    return install


OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "console"}


def test_a_protocol_without_its_exporter_is_named(installed):
    """By default OTLP goes by grpc, also where only the exporter for http is installed."""
    installed("console", "otlp_proto_http")
    by_http = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    assert [*otlp.mismatches(OTLP)] == [
        "traces: OTLP is to be sent by OTEL_EXPORTER_OTLP_PROTOCOL=grpc (the default), and only "
        f"the exporter for http/protobuf is installed: {by_http}, or install "
        "opentelemetry-exporter-otlp-proto-grpc"
    ]
    everything = [*otlp.mismatches({}, by_default="otlp")]
    assert [sentence.partition(":")[0] for sentence in everything] == ["traces, metrics, logs"]
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        assert not [*otlp.mismatches(OTLP | {name: "http/protobuf"})]
    installed("otlp_proto_grpc")
    assert not [*otlp.mismatches(OTLP)]
    of_traces = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    (sentence,) = otlp.mismatches(OTLP | of_traces)
    assert "set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc, or install " in sentence
    (sentence,) = otlp.mismatches(OTLP | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json, which the SDK does not know" in sentence
    installed()
    (sentence,) = otlp.mismatches(OTLP)
    assert "no exporter of OTLP is installed: install opentelemetry-exporter-otlp" in sentence


def test_exporters_that_are_not_used_are_no_mismatch(installed):
    """Others than OTLP, none, and those that a configuration file chooses."""
    installed()
    for variables in ({}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console"}):
        assert not [*otlp.mismatches(variables)]
    assert not [*otlp.mismatches(OTLP | {"OTEL_CONFIG_FILE": "sdk.yaml"})]


def test_status_names_the_mismatch_of_a_program(program):
    """It says that nothing is exported, and why: no package has an exporter for this protocol."""
    result = command(
        "status",
        *program(""),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
        COLUMNS="120",
    )
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    nothing = "No tracer provider is configured here: nothing is exported."
    assert f"The library was off. {nothing}" in lines  # OpenTelemetry gives up altogether
    # Older versions of the SDK export no logs unless they are told to.
    assert lines[lines.index("Export") + 1].startswith("traces, metrics")
    assert ": OTLP is to be sent by OTEL_EXPORTER_OTLP_PROTOCOL" in lines[lines.index("Export") + 1]


def test_what_it_prints(program):
    """Versions, a row for each primitive, where it was set, and what is to be known."""
    result = command(
        "status",
        *program("import sched, queue\n"),
        OTEL_PYTHON_CONCURRENCY_QUEUE="off",
        OTEL_PYTHON_CONCURRENCY_QEUEU="off",
        COLUMNS="120",
    )
    assert (result.returncode, result.stderr.count("\n") < 2) == (0, True)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"otel-concurrency {version('otel-concurrency')}" in result.stdout
    assert (
        "The library was on. No tracer provider is configured here: nothing is exported." in lines
    )
    assert any(line.startswith("sched parent default patched (sched)") for line in lines)
    assert "queue off OTEL_PYTHON_CONCURRENCY_QUEUE not patched" in lines
    assert "OTEL_PYTHON_CONCURRENCY_QEUEU is not a setting" in result.stdout
    assert "opentelemetry-instrumentation-threading (set aside): " in result.stdout
    assert "Providers and exporters" not in result.stdout  # the one that was lent is none


@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_word_is_broken_in_a_narrow_terminal(columns):
    """Names of modules and settings are whole in 60 and 80 columns, however a setting is made."""
    variables = {
        f"OTEL_PYTHON_CONCURRENCY_{name}": "parent"
        for name in ("THREADING", "FUTURES", "ASYNCIO", "MULTIPROCESSING", "GENERATORS")
    }
    result = command("status", COLUMNS=columns, **variables)
    told = json.loads(command("status", "--json", **variables).stdout)
    words = {word.strip("(),;") for word in result.stdout.split()}
    for primitive in told["primitives"]:
        assert {primitive["name"], *primitive["patched"]} <= words
    assert variables.keys() <= words


def test_sentences_are_wrapped_between_words_in_a_terminal(instrumented):
    """A terminal of 80 columns gets lines that fit, and elsewhere each sentence is one line."""
    state = snapshot.state_of_process()
    sentence = " ".join(f"OTEL_PYTHON_CONCURRENCY_{number:04}" for number in range(30))
    state |= {"warnings": [sentence], "exporters": [], "neighbours": []}
    for terminal in (True, False):
        console = Console(width=80, file=io.StringIO(), force_terminal=terminal, color_system=None)
        status_verb._show(console, state, "The library was on.")
        shown = console.file.getvalue()
        lines = shown[shown.index("Warnings") :].splitlines()
        assert set(sentence.split()) <= set(shown.split())
        assert (max(map(len, lines)) <= 80) is terminal
        assert (f"  {sentence}" in lines) is not terminal


def test_what_cannot_be_patched_is_told_with_the_reason(program, tmp_path):
    """The exit status is 1 then, if the program's is not worse."""
    (tmp_path / "sched.py").write_text("")
    command_line = program("import sched\n")
    told, result = status(*command_line)
    assert result.returncode == 1
    (failure,) = of(told, "sched")["failures"].values()
    assert failure.startswith("AttributeError: ")
    assert of(told, "sched")["patched"] == []
    shown = command("status", *command_line)
    assert f"sched: sched cannot be patched: {failure}" in shown.stdout
    assert "could not be patched" in shown.stdout


def test_a_program_with_a_provider_of_its_own(program):
    """Its class is named."""
    told, _ = status(
        *program(
            "from opentelemetry import trace\n"
            "from opentelemetry.sdk.trace import TracerProvider\n"
            "class Own(TracerProvider): pass\n"
            "trace.set_tracer_provider(Own())\n"
        )
    )
    assert told["provider"] == "__main__.Own"


def test_children_of_a_program_tell_nothing(program):
    """It is the program's first process that is told of, also where others end before."""
    told, result = status(
        *program(
            "import os, queue, subprocess, sys\n"
            "subprocess.run([sys.executable, '-c', 'import sched'], check=True)\n"
            "child = os.fork()\n"
            "if child: os.waitpid(child, 0)\n"
            "else: import sched\n"
        )
    )
    assert result.returncode == 0
    assert of(told, "queue")["patched"]
    assert not of(told, "sched")["patched"]


def test_a_program_that_leaves_without_its_exit_handlers(program):
    """What it has patched is told all the same, and its status is kept; a fork tells nothing."""
    told, result = status(
        *program(
            "import os\n"
            "child = os.fork()\n"
            "if child:\n"
            "    import queue\n"
            "    os.waitpid(child, 0)\n"
            "os._exit(0 if child else 1)\n"
        )
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert of(told, "queue")["patched"]


def test_a_program_that_becomes_another_one(program):
    """It is told of what it is in the end, as a server is that has found its code changed."""
    told, result = status(
        *program(
            "import os, sys\n"
            "if sys.argv[1:]: import queue\n"
            "else: os.execv(sys.executable, [sys.executable, __file__, 'again'])\n"
        )
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert of(told, "queue")["patched"]


def test_a_program_that_does_not_tell(program):
    """One that is killed, or that runs without this library, is named as such."""
    result = command("status", *program("import os\nos.kill(os.getpid(), 9)\n"))
    assert result.returncode == 128 + 9
    assert "did not write its state" in result.stderr
    result = command("status", "--", sys.executable, "-I", "-c", "")
    assert result.returncode == 1
    assert "did not write its state" in result.stderr


def test_somebody_elses_patch_on_top_is_told(told, monkeypatch):
    """With the module that has made it, and whether what is below is still reached."""

    def remarks():
        every = told("threading")["remarks"]
        return [remark for remark in every if remark.startswith("threading.Thread.start: ")]

    assert remarks() == []
    start = threading.Thread.start

    @functools.wraps(start)
    def patched(self):
        return start(self)

    monkeypatch.setattr(threading.Thread, "start", patched)
    (remark,) = remarks()
    assert remark == f"threading.Thread.start: {__name__} has patched over it, which works"
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    (remark,) = remarks()
    assert remark.startswith(f"threading.Thread.start: {__name__} has replaced it")


def test_a_name_that_was_bound_too_early_is_told(monkeypatch):
    """It is a module's that has imported it before the library was switched on."""
    early = types.ModuleType("early")
    early.Channel = queue.SimpleQueue
    monkeypatch.setitem(sys.modules, "early", early)
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument()
    try:
        remarks = of(snapshot.state_of_process(), "queue")["remarks"]
    finally:
        instrumentor.uninstrument()
    assert [remark for remark in remarks if remark.startswith("early.")] == [
        "early.Channel was bound to queue.SimpleQueue before the library was switched on, and "
        "carries no context"
    ]


@pytest.mark.parametrize("imported", [functools.wraps, queue])
def test_what_is_replaced_for_one_library_alone_is_not_told_of_others(imported, monkeypatch):
    """Such as a module that it has imported: others are meant to have the plain one."""
    library, other = types.ModuleType("library"), types.ModuleType("other")
    library.imported = other.imported = imported
    library.own = other.own = types.FunctionType((lambda: None).__code__, vars(library))
    monkeypatch.setitem(sys.modules, "other", other)
    layers = [
        Layer(library, name, lambda raw: lambda *_: raw, check_signature=False)
        for name in ("imported", "own")
    ]
    apply_all(layers)
    try:
        remarks = list(snapshot._bound_too_early(layers))
    finally:
        undo_all(layers)
    assert [remark.partition(" was ")[0] for remark in remarks] == ["other.own"]


def test_a_neighbour_is_told_with_what_it_changes(official):
    """It is active while it is on, and only found where it is not."""

    def active():
        found = {each["name"]: each for each in neighbours.found()}
        neighbour = found["opentelemetry-instrumentation-threading"]
        assert "link" in neighbour["changes"]
        return neighbour["active"], neighbour["set_aside"]

    assert active() == (False, False)
    ThreadingInstrumentor().instrument()
    assert active() == (True, False)
    ConcurrencyInstrumentor().instrument()
    assert active() == (True, True)
    ConcurrencyInstrumentor().uninstrument()
    assert active() == (True, False)


def test_switched_off_nothing_is_told_to_be_patched(instrumented):
    """Primitives are `off` in a process where the library is."""
    instrumented.uninstrument()
    told = snapshot.state_of_process()
    assert not told["on"]
    assert {each["policy"] for each in told["primitives"]} == {"off"}


def test_the_readme_names_it():
    """The command stands in the README."""
    assert "otel-concurrency status" in README.read_text(encoding="utf-8")


def test_what_cannot_be_done_for_generators_is_told(program):
    """Where nobody hears of a suspension: on an older Python, or where all tool ids are taken."""
    told, _ = status(
        *program(
            "import sys\n"
            "from opentelemetry import context\n"
            "if hasattr(sys, 'monitoring'):\n"
            "    for tool in range(6):\n"
            "        sys.monitoring.use_tool_id(tool, 'other')\n"
            "def stream():\n"
            "    with_value = context.attach(context.set_value('key', 'value'))\n"
            "    yield\n"
            "    context.detach(with_value)\n"
            "list(stream())\n"
        )
    )
    (remark,) = of(told, "generators")["remarks"]
    taken = "all tool ids of sys.monitoring are taken"
    assert remark.startswith(taken if monitoring.IS_THERE else "this Python has no sys.monitoring")
    assert "Nothing is logged" in remark
