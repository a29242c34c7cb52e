"""``otel-concurrency trace``, run as users run it, on programs that know nothing of it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.request
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import watching
from otel_concurrency._cli import running
from programs import APPS, BROKEN

SCRIPTS = Path(sysconfig.get_path("scripts"))
DEADLINE = 100

PROGRAM = """
import sys, threading
from opentelemetry import trace
tracer = trace.get_tracer("program")
def work(name):
    with tracer.start_as_current_span(name):
        pass
def hand_off(name):
    thread = threading.Thread(target=work, args=(name,))
    thread.start()
    thread.join()
"""

REQUEST = 'with tracer.start_as_current_span("request"): hand_off("work")\n'


@dataclass(frozen=True)
class Run:
    """What the command printed, said and wrote."""

    status: int
    stdout: str
    stderr: str
    report: dict = field(default_factory=dict)

    @property
    def names(self):
        """How many spans there are of each name."""
        return Counter(span["name"] for span in self.report["spans"])

    def parent_of(self, name):
        """Return the name of the parent of the only span of that name."""
        by_id = {tuple(span["id"]): span for span in self.report["spans"]}
        (span,) = (span for span in by_id.values() if span["name"] == name)
        return by_id[tuple(span["parent"])]["name"] if span["parent"] else None


def environment(**variables):
    """Return ours with this instrumentation alone, and nothing that says how to export."""
    others = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "PYTHON")) and key not in ("COLUMNS", "FORCE_COLOR")
    }
    return {
        **kept,
        "PYTHONIOENCODING": "utf-8",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others - {"concurrency"}),
        **variables,
    }


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program, which has `work` and `hand_off`, to a file."""

    def write(text, prelude=PROGRAM):
        path = tmp_path / "program.py"
        path.write_text(prelude + textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def trace(tmp_path):
    """Return a function that runs the command on a program, with a JSON report."""

    def run(*command, options=(), deadline=DEADLINE, **variables):
        report = tmp_path / "report.json"
        finished = subprocess.run(
            [SCRIPTS / "otel-concurrency", "trace", "--json", report, *options, "--", *command],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=deadline,
        )
        written = report.read_text() if report.exists() else ""
        return Run(
            finished.returncode,
            finished.stdout,
            finished.stderr,
            json.loads(written) if written else {},
        )

    return run


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the command; it is ended with the test."""
    started = []

    def run(*command, options=(), cwd=tmp_path, **more):
        report = tmp_path / "report.json"
        started.append(
            subprocess.Popen(
                [SCRIPTS / "otel-concurrency", "trace", "--json", report, *options, *command],
                env=environment(**more.pop("variables", {})),
                cwd=cwd,
                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


# --- what is shown ---


def test_a_program_is_shown_with_its_hand_offs(program, trace):
    """A trace is drawn as a tree, with the line that handed work off and where it ran."""
    path = program(REQUEST)
    shown = trace(sys.executable, path)
    line = PROGRAM.splitlines().index("    thread.start()") + 1
    assert (shown.status, shown.stderr) == (0, "")
    assert re.search(r"^request +\d+.*MainThread", shown.stdout, re.MULTILINE)
    row = rf"^└─ work .* ⇢ Thread\.start program\.py:{line}, waited [\d.]+ .s"
    assert re.search(row, shown.stdout, re.MULTILINE)
    assert "1 trace, 2 spans, 1 hand-off, 0 orphans, 0 leaks" in shown.stdout
    assert shown.names == {"request": 1, "work": 1}
    assert shown.report["command"] == [sys.executable, path]


def test_off_shows_the_program_without_the_library(program, trace):
    """With --off the library is off, and what comes off is told with the line at fault."""
    shown = trace(sys.executable, program(REQUEST), options=["--off"])
    assert shown.status == 0
    assert shown.parent_of("work") is None
    assert [orphan["site"].rsplit(":")[0] for orphan in shown.report["orphans"]]
    assert re.search(r"^✗ work .* orphan: see 1", shown.stdout, re.MULTILINE)
    assert "1 orphan," in shown.stdout


def test_off_holds_for_programs_that_switch_the_library_on(program, trace):
    """With --off even a program that calls `instrument()` itself has no library."""
    path = program(
        f"""
        from otel_concurrency import ConcurrencyInstrumentor
        ConcurrencyInstrumentor().uninstrument()
        ConcurrencyInstrumentor().instrument()
        {REQUEST}
        """
    )
    assert trace(sys.executable, path).parent_of("work") == "request"
    assert trace(sys.executable, path, options=["--off"]).parent_of("work") is None


def test_compare_says_what_it_runs(program, trace):
    """Before each run it says which one that is, and how it ends: a server does not by itself."""
    path = program(REQUEST)
    shown = trace(sys.executable, path, options=["--compare"])
    first, second = (line for line in shown.stderr.splitlines() if "run " in line)
    assert f"run 1 of 2, without the library: {sys.executable} {path} " in first
    assert "by Ctrl-C" in first
    assert "run 2 of 2, with the library: " in second


RAISES = """
import asyncio, threading, traceback
from concurrent.futures import ThreadPoolExecutor

def fail():
    raise ValueError("of the program")

async def hand_off():
    await asyncio.get_running_loop().run_in_executor(None, fail)

thread = threading.Thread(target=fail)
thread.start()
thread.join()
for work in (
    lambda: ThreadPoolExecutor(1).submit(fail).result(),
    lambda: asyncio.run(hand_off()),
):
    try:
        work()
    except ValueError:
        traceback.print_exc()
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the interpreter keeps a copy of tracebacks")
@pytest.mark.parametrize("options", [[], ["--off"]])
def test_tracebacks_are_those_of_the_program(program, trace, options):
    """They show no line of what watches, nor of the library."""
    shown = trace(sys.executable, program(RAISES), options=options)
    assert shown.stderr.count("ValueError: of the program") == 3
    assert "otel_concurrency" not in shown.stderr


def test_compare_shows_both(program, trace):
    """With --compare the program runs without the library and with it, and both are told."""
    shown = trace(sys.executable, program(REQUEST), options=["--compare"])
    assert shown.status == 0
    off, on = (Run(0, "", "", shown.report[name]) for name in ("off", "on"))
    assert (off.parent_of("work"), on.parent_of("work")) == (None, "request")
    assert (off.report["library"], on.report["library"]) == (False, True)
    assert re.search(r"^orphans +1 +0", shown.stdout, re.MULTILINE)


def test_the_page_is_written(program, trace, tmp_path):
    """With --html the report is a page, and with --compare one page has both."""
    page = tmp_path / "page.html"
    path = program(REQUEST)
    assert trace(sys.executable, path, options=["--html", str(page)]).status == 0
    assert '"request"' in page.read_text(encoding="utf-8")
    assert trace(sys.executable, path, options=["--html", str(page), "--compare"]).status == 0
    text = page.read_text(encoding="utf-8")
    assert "library off" in text
    assert "library on" in text


def test_names_of_a_program_do_not_move_the_cursor(program, trace):
    """Names that hold line ends, escape sequences or what no encoding has are shown as one line."""
    shown = trace(sys.executable, program(r"work('a\nb\x1b[2J\ud800')"))
    assert shown.status == 0
    assert re.search(r"^a b \[2J\S* +\d", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", BROKEN)
def test_the_line_at_fault_is_printed(trace, name):
    """Of a program that loses its context, the line at fault is printed, and what to do."""
    reason, settings = BROKEN[name]
    settings = dict(settings)
    options = [] if settings.pop("library", True) else ["--off"]
    program = f"broken/{name}.py"
    command = [sys.executable, "-W", watching.FORKS, str(APPS / program)]
    shown = trace(*command, options=options, **settings)
    assert (shown.status, shown.stderr) == (0, "")
    faults = shown.report["orphans"] + shown.report["leaks"]
    line = watching.line_at_fault(program)
    assert {(fault["reason"], fault["site"]) for fault in faults} == {(reason, line)}
    told = " ".join(shown.stdout.partition("Leaks: ")[2].split())
    told += " ".join(shown.stdout.partition("Orphans: ")[2].split())
    assert line.rpartition("/")[2] in told
    for fault in faults:
        assert re.sub(r"/\S+/", "", fault["advice"]) in re.sub(r"/\S+/", "", told)


# --- exit statuses ---


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("sys.exit(7)", 7),
        ("import os; os._exit(9)", 9),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_exit_status_of_the_program_is_kept(program, trace, text, status):
    """However the program ends, its status is the command's, and what has arrived is reported."""
    shown = trace(sys.executable, program(f"{REQUEST}{text}"))
    assert shown.status == status
    assert shown.report["exit_status"] == status
    assert shown.names == {"request": 1, "work": 1}


def test_a_span_that_was_running_when_the_program_was_killed(program, trace):
    """A span that never ended is reported as one that was running."""
    text = """
    import os, signal
    with tracer.start_as_current_span("request"):
        os.kill(os.getpid(), signal.SIGKILL)
    """
    shown = trace(sys.executable, program(text))
    assert [span["end_ns"] for span in shown.report["spans"]] == [None]
    assert re.search(r"^request +running", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--off"], 0),
        (["--off", "--fail-on", "orphans"], 1),
        (["--off", "--fail-on", "leaks"], 0),
        (["--off", "--fail-on", "orphans,leaks"], 1),
        (["--fail-on", "orphans,leaks"], 0),
        (["--compare", "--fail-on", "orphans"], 0),
    ],
)
def test_fail_on(program, trace, options, status):
    """--fail-on has the command fail on what it names, and on nothing else."""
    shown = trace(sys.executable, program(REQUEST), options=options)
    assert shown.status == status
    assert ("failed on 1 orphan" in shown.stderr) == bool(status)


def test_fail_on_does_not_hide_a_failure(program, trace):
    """A program that fails by itself keeps its own status."""
    path = program(f"{REQUEST}sys.exit(7)")
    assert trace(sys.executable, path, options=["--off", "--fail-on", "orphans"]).status == 7


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ([], 2, "no program to run was given"),
        (["no-such-program"], 127, "there is no program no-such-program"),
        (["/"], 126, "/ cannot be run"),
    ],
)
def test_a_program_that_cannot_be_run(trace, command, status, words):
    """What cannot be run is told in a sentence, with the status that a shell would give."""
    shown = trace(*command)
    assert (shown.status, shown.stdout) == (status, "")
    assert words in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--fail-on", "orphans,lerks"],
            "expected orphans or leaks, or both with a comma between them, got 'orphans,lerks'",
        ),
        (["--limit", "0"], "expected a positive integer, got '0'"),
        (["--off", "--compare"], "not allowed with"),
        (["--html", "no/such/directory"], "no/such/directory cannot be written"),
    ],
)
def test_options_that_make_no_sense(trace, options, words):
    """What is wrong with an option is said before the program runs."""
    shown = trace(sys.executable, "-c", "print('ran')", options=options)
    assert (shown.status, shown.stdout) == (2, "")
    assert words in shown.stderr


def test_a_command_that_fails_leaves_no_file(trace, tmp_path):
    """Files of the report are there if there is a report, and what was there stays."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    options = ["--pid", str(ended.pid)]
    page, old = tmp_path / "page.html", tmp_path / "old.html"
    old.write_text("of before", encoding="utf-8")
    for file in (page, old):
        assert trace(options=[*options, "--html", str(file)]).status == 2
    assert not page.exists()
    assert old.read_text(encoding="utf-8") == "of before"


def test_a_python_that_does_not_have_the_library(trace):
    """Where nothing could be observed, the command says what may be the reason."""
    shown = trace(sys.executable, "-I", "-c", "print('ran')")
    assert shown.status == 0
    assert shown.stdout.startswith("ran\n")
    assert "no Python process of this program could be observed" in shown.stderr


# --- the program is what it would be ---


CALLED_BY_NOBODY = """
import queue, threading
from greenlet import greenlet
from opentelemetry import context
event, condition = threading.Event(), threading.Condition()
with condition:
    for call in (event.set, event.wait, event.clear, condition.notify, context.get_current):
        greenlet(call).switch()
greenlet(context.attach).switch(context.Context())
for kind in (queue.Queue, queue.SimpleQueue):
    items = greenlet(kind).switch()
    greenlet(items.put).switch(1)
    print(greenlet(items.get).switch())
"""


def test_calls_without_a_caller_are_made_all_the_same(program, trace):
    """A greenlet may begin with any of them."""
    run = trace(sys.executable, program(CALLED_BY_NOBODY))
    assert run.stdout.splitlines()[:2] == ["1", "1"]
    assert "ValueError" not in run.stderr


def test_standard_streams_are_the_programs(program, start):
    """The program reads our input and writes to our output and error, untouched."""
    path = program("print(input()); print('err', file=sys.stderr)")
    process = start("--", sys.executable, path, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate("said\n", timeout=DEADLINE)
    assert stdout.startswith("said\n")
    assert stderr == "err\n"


def test_arguments_of_the_program_are_its_own(program, trace):
    """Options behind the program are the program's, also where the command has the same."""
    path = program("print(sys.argv[1:])")
    shown = trace(sys.executable, path, "--off", "--", "--json", "x")
    assert "['--off', '--', '--json', 'x']" in shown.stdout
    assert shown.report["library"] is True


SET_PROVIDER = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
exporter = ConsoleSpanExporter(formatter=lambda span: span.name + ".")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


def test_a_program_keeps_its_own_exporters(program, trace):
    """A provider that the program sets is the one that its spans go to, also of earlier tracers."""
    path = program(f'work("before")\n{SET_PROVIDER}{REQUEST}')
    shown = trace(sys.executable, path)
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.startswith("work.request.")
    assert shown.names == {"before": 1, "work": 1, "request": 1}


def test_a_provider_can_be_set_once(program, trace):
    """A second provider is refused, as it is without the command."""
    path = program(f"{SET_PROVIDER}{SET_PROVIDER}{REQUEST}")
    shown = trace(sys.executable, path)
    assert "Overriding of current TracerProvider is not allowed" in shown.stderr
    assert shown.stdout.startswith("work.request.")


def test_a_program_adds_its_exporter_to_the_provider_that_it_finds(program, trace):
    """Without a provider of its own, a program finds one of the SDK, as where it is configured."""
    add = SET_PROVIDER.replace("TracerProvider()\n", "trace.get_tracer_provider()\n", 1)
    add = add.replace("trace.set_tracer_provider(provider)\n", "")
    shown = trace(sys.executable, program(f"{add}{REQUEST}"))
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.startswith("work.request.")


@pytest.mark.parametrize("launcher", [(), (SCRIPTS / "opentelemetry-instrument",)])
def test_exporters_of_the_environment_are_used(program, trace, launcher):
    """Exporters that the environment names are configured as opentelemetry-instrument does it."""
    path = program(REQUEST)
    shown = trace(*launcher, sys.executable, path, OTEL_TRACES_EXPORTER="console")
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.count('"trace_id"') == 2
    assert shown.names == {"request": 1, "work": 1}
    assert shown.parent_of("work") == "request"


def test_opentelemetry_instrument_may_be_part_of_the_command(program, trace):
    """Under opentelemetry-instrument the program is observed too, and its flags hold."""
    launcher = SCRIPTS / "opentelemetry-instrument"
    shown = trace(launcher, "--concurrency_threading", "off", sys.executable, program(REQUEST))
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.names == {"request": 1, "work": 1}
    assert shown.parent_of("work") is None


def test_settings_of_the_environment_hold(program, trace):
    """The library does under the command what its settings say."""
    shown = trace(sys.executable, program(REQUEST), OTEL_PYTHON_CONCURRENCY_THREADING="link")
    (work,) = (span for span in shown.report["spans"] if span["name"] == "work")
    assert work["parent"] is None
    assert [link["reason"] for link in work["links"]] == ["policy"]
    assert re.search(r"→ link request +policy", shown.stdout)


def test_another_sitecustomize_is_run(program, trace, tmp_path):
    """A start-up module that the program's environment has is run, and before the program."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("import sys\nsys.was_there = True\n")
    shown = trace(
        sys.executable,
        program(f"print(sys.was_there, sys.modules['sitecustomize'].__file__)\n{REQUEST}"),
        PYTHONPATH=str(tmp_path / "other"),
    )
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"True {tmp_path / 'other'}")
    assert shown.names == {"request": 1, "work": 1}


# --- processes ---


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(program, trace, method):
    """Children of every start method are observed, and are in the trace of who started them."""
    path = program(
        f"""
        import multiprocessing
        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with tracer.start_as_current_span("request"):
                child = context.Process(target=work, args=("child",))
                child.start()
                child.join()
                with context.Pool(1) as pool:
                    pool.apply(work, ("pool",))
        """
    )
    shown = trace(sys.executable, path)
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.names == {"request": 1, "child": 1, "pool": 1}
    assert (shown.parent_of("child"), shown.parent_of("pool")) == ("request", "request")
    assert len({span["pid"] for span in shown.report["spans"]}) == 3


def test_commands_of_the_program(program, trace):
    """Every Python that the program starts is observed, and other programs are as they are."""
    path = program(
        """
        import subprocess
        if sys.argv[1:]:
            work("inner")
        else:
            subprocess.run(["true"], check=True)
            subprocess.run([sys.executable, __file__, "inner"], check=True)
            work("outer")
        """
    )
    shown = trace(sys.executable, path)
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.names == {"inner": 1, "outer": 1}
    assert len(shown.report["processes"]) == 2


def test_commands_are_started_from_names_of_any_length(program, trace):
    """A command is told where it comes from, however long the names of that are."""
    path = program(
        """
        import subprocess
        if sys.argv[1:]:
            work("inner")
        else:
            threading.current_thread().name = "\N{SNAKE}" * 200_000
            start = "subprocess.run([sys.executable, __file__, 'inner'])"
            with tracer.start_as_current_span("\N{SNAKE}" * 200_000):
                exec(compile(start, "/file" * 40_000, "exec"))
        """
    )
    shown = trace(sys.executable, path)
    assert (shown.status, shown.stderr) == (0, "")
    (by,) = shown.report["hand_offs"]
    assert by["call"] == "subprocess.run"
    (inner,) = (span for span in shown.report["spans"] if span["name"] == "inner")
    assert inner["hand_off"] == by["id"]


def test_a_command_that_is_not_observed_is_told_nothing(program, trace):
    """An environment that has nothing of ours stays as the program gives it."""
    path = program(
        """
        import subprocess
        code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
        with tracer.start_as_current_span("request"):
            subprocess.run([sys.executable, "-c", code], env={"OWN": "1"})
        """
    )
    shown = trace(sys.executable, path)
    assert shown.status == 0
    assert shown.stdout.startswith("['OWN']\n")


def test_forks_that_leave_at_once(program, trace):
    """A child of os.fork that leaves by os._exit is observed to its last line."""
    path = program(
        """
        import os
        child = os.fork()
        if not child:
            work("child")
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    shown = trace(sys.executable, "-W", "ignore", path)
    assert (shown.status, shown.names) == (0, {"child": 1})


STAYS = """
import os, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
child = os.fork()
if not child:
    os.setsid()
    for stream in (0, 1, 2):  # the command's pipes would stay open with it
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    provider.get_tracer("daemon").start_span("work of the daemon").end()
    open("working", "x").close()
    while not os.path.exists("leave"):
        time.sleep(0.01)
    os._exit(0)
while not os.path.exists("working"):
    time.sleep(0.01)
"""


def test_who_outlives_the_program_may_still_export(program, trace, tmp_path):
    """Spans that a process has not exported yet are not lost while it runs."""
    try:
        shown = trace(
            sys.executable,
            "-W",
            "ignore",
            program(STAYS),
            OTEL_BSP_SCHEDULE_DELAY="1000000",
        )
    finally:
        (tmp_path / "leave").touch()
    assert shown.status == 0
    assert shown.names == {"work of the daemon": 1}
    assert shown.report["leaks"] == []


def test_who_was_killed_does_not_export_any_more(program, trace):
    """Spans that it had not exported are lost."""
    kill = "os.kill(child, 9)\nos.waitpid(child, 0)\n"
    shown = trace(
        sys.executable, "-W", "ignore", program(STAYS + kill), OTEL_BSP_SCHEDULE_DELAY="1000000"
    )
    assert shown.status == 0
    assert [leak["reason"] for leak in shown.report["leaks"]] == ["not_exported"]


# --- signals ---

WAITS = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
work("before")
try:
    print("ready", flush=True)
    for _ in range(600):  # a signal that comes just before a sleep is seen after it
        time.sleep(0.1)
except KeyboardInterrupt:
    time.sleep(0.5)  # a second one would end this
    work("interrupted")
    print("cleaned up", flush=True)
"""


linux_alone = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent was killed"
)


@linux_alone
def test_program_ends_when_the_command_is_killed(program, start):
    """SIGKILL, which the command cannot pass on, leaves no program behind."""
    process = start("--", sys.executable, program(WAITS), start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=DEADLINE)  # the program has the other end of the pipe


@linux_alone
def test_a_python_without_ctypes_runs_the_program(monkeypatch):
    """The program then outlives a command that is killed."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    assert running.run(command, os.environ, meanwhile=lambda: None) == 3


@pytest.mark.parametrize("to", ["command", "group"])
def test_ctrl_backslash_reaches_the_program(program, start, tmp_path, to):
    """SIGQUIT, on which servers end quickly, is the program's affair, and it is told then."""
    quits = "import signal\nsignal.signal(signal.SIGQUIT, lambda *_: sys.exit(21))\n"
    process = start("--", sys.executable, program(quits + WAITS), start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    (os.kill if to == "command" else os.killpg)(process.pid, signal.SIGQUIT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 21
    assert json.loads((tmp_path / "report.json").read_text())["spans"]


@pytest.mark.parametrize("to", ["command", "group"])
def test_ctrl_c_reaches_the_program_once(program, start, tmp_path, to):
    """SIGINT, to the command or its process group, lets the program clean up; then it is told."""
    process = start("--", sys.executable, program(WAITS), start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    (os.kill if to == "command" else os.killpg)(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.startswith("cleaned up\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [span["name"] for span in report["spans"]] == ["before", "interrupted"]


def test_ctrl_c_reaches_a_program_in_the_background(program, start):
    """Started with SIGINT ignored, as scripts do, the program decides whether it stays so."""
    wants = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = start(
        "--",
        sys.executable,
        program(wants + WAITS),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert stdout.startswith("cleaned up\n")


def test_ctrl_c_in_a_terminal(program, start, tmp_path):
    """In a terminal the program gets Ctrl-C from it, once, and the report follows."""
    here, there = pty.openpty()
    process = start(
        "--",
        sys.executable,
        program(WAITS),
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(there)
    seen = read_until(here, "ready")
    os.write(here, b"\x03")
    seen += read_until(here, "exit status")
    assert process.wait(DEADLINE) == 0
    assert seen.count("cleaned up") == 1
    assert "Traceback" not in seen
    os.close(here)


def read_until(terminal, words):
    """Return what is shown on the terminal up to ``words``."""
    seen = ""
    while words not in seen:
        seen += os.read(terminal, 1000).decode(errors="replace")
    return seen


def test_sigterm_reaches_the_program(program, start, tmp_path):
    """SIGTERM to the command is the program's, and what it has done is reported."""
    process = start("--", sys.executable, program(WAITS))
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert json.loads((tmp_path / "report.json").read_text())["spans"]


def test_a_program_without_its_command_goes_on(program, start, tmp_path):
    """One that takes no notice of SIGTERM needs nobody who reads what is seen of it."""
    path = program(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        work("before")
        print("ready", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        for number in range(20_000):
            work("after")
        print("done", flush=True)
        """
    )
    process = start("--", sys.executable, path)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    assert process.stdout.readline() == "done\n"


def test_what_a_killed_command_has_left_is_removed_by_the_next(program, start, trace, tmp_path):
    """One that is used is not."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "otel-concurrency-of-somebody").mkdir()
    (shared / "otel-concurrency-link").symlink_to(tmp_path)
    others = sorted(shared.iterdir())
    path = program(
        """
        import time, os
        print("ready", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        work("after")
        """
    )
    killed, used = (start("--", sys.executable, path, variables={"TMPDIR": shared}) for _ in "12")
    assert (killed.stdout.readline(), used.stdout.readline()) == ("ready\n", "ready\n")
    assert len(list(shared.iterdir())) == len(others) + 2
    killed.kill()
    killed.wait()
    assert trace(sys.executable, "-c", "", TMPDIR=str(shared)).status == 0
    assert len(list(shared.iterdir())) == len(others) + 1
    (tmp_path / "go").touch()
    stdout, _ = used.communicate(timeout=DEADLINE)
    assert "1 span" in stdout
    assert sorted(shared.iterdir()) == others


# --- servers ---


@pytest.fixture
def port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path):
    """Return the answer of a server that may still be starting."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


INSTRUMENTED = {
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(
        {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
        - {"concurrency", "fastapi", "asgi"}
    )
}


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_a_service_of_fifty_requests(start, port, tmp_path, server):
    """Fifty requests at a time are fifty whole trees without an orphan, told when Ctrl-C comes."""
    arguments = {
        "uvicorn": ["--port", str(port), "--log-level", "warning"],
        "gunicorn": f"-k asgi -w 2 -b 127.0.0.1:{port} --log-level warning".split(),
    }[server]
    process = start(
        SCRIPTS / server,
        *arguments,
        "fastapi_service:app",
        cwd=APPS,
        variables={**INSTRUMENTED, "HOME": str(tmp_path)},
    )
    ask(port, "/sync/first")
    kinds = ["sync", "async"]
    with ThreadPoolExecutor(50) as clients:
        answers = [clients.submit(ask, port, f"/{kinds[n % 2]}/{n}") for n in range(49)]
        for answer in answers:
            answer.result()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=DEADLINE)
    report = json.loads((tmp_path / "report.json").read_text())
    roots = [span for span in report["spans"] if span["parent"] is None]
    assert report["orphans"] == [], stdout
    assert report["leaks"] == [], stdout
    assert len(roots) == 50
    assert {root["kind"] for root in roots} == {"SERVER"}
    by_id = {tuple(span["id"]): span for span in report["spans"]}
    trees = defaultdict(set)
    for span in by_id.values():
        parent = by_id[tuple(span["parent"])]["name"] if span["parent"] else None
        trees[span["id"][0]].add((span["name"], parent))
    assert len(trees) == 50
    for kind in kinds:
        alike = [tree for tree in trees.values() if (f"GET /{kind}/{{request}}", None) in tree]
        assert len(alike) >= 24
        whole = set.union(*alike)
        assert len(whole) == len(dict(whole))  # of one name, all have one parent
        if server == "uvicorn":  # gunicorn does not wait for what is left to be done
            assert all(tree == whole for tree in alike)
            assert {"Timer", "scheduler", "map", "done-callback"} < dict(whole).keys()
    assert "0 orphans, 0 leaks" in stdout
    assert stderr == ""


# --- much of it ---


def test_long_runs_show_how_much_there_is(program, start, tmp_path):
    """On a terminal, a program that runs long has its counts shown now and then."""
    here, there = pty.openpty()
    path = program(
        f"""
        import time
        {REQUEST}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.1)
        """
    )
    process = start("--", sys.executable, path, stderr=there)
    os.close(there)
    assert re.search(r"after \d+ s: ", read_until(here, "1 trace, 2 spans, 1 hand-off, 0 orphans"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    os.close(here)


def test_the_limit_bounds_what_is_kept(program, trace):
    """Beyond --limit spans are counted and not kept, and the report says so."""
    shown = trace(
        sys.executable, program('for _ in range(300): work("many")'), options=["--limit", "100"]
    )
    assert shown.status == 0
    assert len(shown.report["spans"]) == 100
    assert shown.report["dropped"]["spans"] == 200
    assert "300 traces, 300 spans" in shown.stdout
    assert "not kept (--limit): 200 traces, 200 spans" in shown.stdout


@pytest.mark.scale
@pytest.mark.timeout(600)
def test_a_hundred_thousand_spans(program, trace, tmp_path):
    """All are counted, each line's hand-offs too, and the page is of as many as were to be kept."""
    path = program(
        """
        import queue
        items = queue.Queue()
        def consume():
            while items.get() is not None:
                work("consumed")
        consumer = threading.Thread(target=consume)
        consumer.start()
        for number in range(50_000):
            with tracer.start_as_current_span("produced"):
                items.put(number)
        items.put(None)
        consumer.join()
        """
    )
    page = tmp_path / "page.html"
    shown = trace(sys.executable, path, options=["--limit", "10000", "--html", page], deadline=500)
    assert (shown.status, shown.stderr) == (0, "")
    assert "50,000 traces, 100,000 spans, 50,002 hand-offs, 0 orphans, 0 leaks" in shown.stdout
    assert len(shown.report["spans"]) == len(shown.report["hand_offs"]) == 10_000
    assert shown.report["dropped"]["spans"] == 90_000
    assert shown.report["dropped"]["hand_offs"] == 40_002
    assert max(site["with_context"] for site in shown.report["call_sites"]) == 50_000
    assert page.stat().st_size < 10_000_000


def test_calls_are_seen_beside_other_instrumentors(trace):
    """The official ones, which carry context too, do not hide who has handed the work off."""
    ran = trace(sys.executable, str(APPS / "calls.py"), OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="")
    assert (ran.status, ran.report["orphans"]) == (0, [])
    calls = {hand_off["id"]: hand_off["call"] for hand_off in ran.report["hand_offs"]}
    seen = {span["name"]: calls.get(span["hand_off"]) for span in ran.report["spans"]}
    requests = {"request": None, "request of a loop": None}
    assert seen == requests | {name: name for name in seen.keys() - requests}
    assert len(seen) == 11


# --- what the command says ---


def test_off_advises_to_switch_the_library_on(program, trace):
    """Where the run had the library off, the advice is to switch it on, not one primitive."""
    shown = trace(sys.executable, program(REQUEST), options=["--off"])
    (orphan,) = shown.report["orphans"]
    assert "this run had the library off" in orphan["words"]
    assert orphan["advice"] == "Let the library carry it: switch it on."
    assert "OTEL_PYTHON_CONCURRENCY" not in orphan["words"] + orphan["advice"]


def test_a_primitive_that_is_off_is_named(program, trace):
    """Where one primitive was off, the advice names its setting."""
    shown = trace(sys.executable, program(REQUEST), OTEL_PYTHON_CONCURRENCY_THREADING="off")
    (orphan,) = shown.report["orphans"]
    assert "primitive THREADING is off" in orphan["words"]
    assert "OTEL_PYTHON_CONCURRENCY_THREADING=parent" in orphan["advice"]


def test_a_root_is_not_annotated_with_a_hand_off_without_context(program, trace):
    """A thread that was started outside any span says nothing of how its root span came to be."""
    shown = trace(sys.executable, program('hand_off("work")'))
    assert shown.names == {"work": 1}
    assert [span["hand_off"] for span in shown.report["spans"]] == [None]
    assert "waited" not in next(row for row in shown.stdout.splitlines() if row.startswith("work "))


@pytest.mark.parametrize(
    ("options", "status"), [([], 0), (["--fail-on", "orphans"], 3), (["--fail-on", "leaks"], 3)]
)
def test_a_program_without_spans(program, trace, options, status):
    """A program that starts no span is no success: the command says so, with its own status."""
    shown = trace(sys.executable, program("print('nothing')"), options=options)
    assert shown.status == status
    assert "No span was started" in shown.stdout
    assert ("no span was started" in shown.stderr) == bool(status)


def test_a_script_is_no_program(program, trace):
    """Where a script is given without its interpreter, the command asks whether that was meant."""
    path = program(REQUEST)
    shown = trace(path, "--with", "an argument")
    assert shown.status == 126
    assert f"did you mean `python {path} --with 'an argument'`?" in shown.stderr


def test_spans_that_failed_are_marked(program, trace):
    """A span with an error status is marked in its tree, and others are not."""
    text = """
    for fails in (True, True, False):
        span = tracer.start_span("fails" if fails else "works")
        if fails:
            span.set_status(trace.StatusCode.ERROR)
        span.end()
    """
    shown = trace(sys.executable, program(text))
    assert re.search(r"^fails .2 .* error .2", shown.stdout, re.MULTILINE)
    assert not re.search(r"^works .*error", shown.stdout, re.MULTILINE)


def test_a_trace_that_the_limit_cut_is_marked(program, trace):
    """With --limit the traces of which spans are missing say so, and complete ones do not."""
    text = """
    with tracer.start_as_current_span("complete"):
        work("child")
    with tracer.start_as_current_span("cut"):
        work("child")
    """
    shown = trace(sys.executable, program(text), options=["--limit", "3"])
    assert re.search(r"^cut .*incomplete \(--limit\)", shown.stdout, re.MULTILINE)
    assert not re.search(r"^complete .*incomplete", shown.stdout, re.MULTILINE)


COUNTS_INTERRUPTS = """
import os, pathlib, signal, time
got = []
def count(*_):
    got.append(1)
    os.write(1, b"got\\n")
signal.signal(signal.SIGINT, count)
with pathlib.Path("runs").open("a") as file:
    file.write("run\\n")
os.write(1, b"ready\\n")
while len(got) < int(sys.argv[1]):
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("times", "soon", "runs"), [(2, "1e9", 1), (2, "-1", 2), (1, "1e9", 2)])
def test_a_second_ctrl_c_ends_a_comparison(program, tmp_path, times, soon, runs):
    """If Ctrl-C comes twice in quick succession, --compare does not run the program again."""
    command = (
        "import sys; from otel_concurrency import _cli; from otel_concurrency._cli import trace; "
        f"trace._SOON = float('{soon}'); sys.exit(_cli.main())"
    )
    path = program(COUNTS_INTERRUPTS)
    process = subprocess.Popen(
        [sys.executable, "-c", command, "trace", "--compare", sys.executable, path, str(times)],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(runs):
            while process.stdout.readline() != "ready\n":
                assert process.poll() is None
            for _ in range(times):
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "got\n"
        _, stderr = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (tmp_path / "runs").read_text() == "run\n" * runs
    assert ("not run again" in stderr) == (runs == 1)
