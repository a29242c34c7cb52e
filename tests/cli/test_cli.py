"""The command, run as users run it: a real process, its output and its exit status."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind
from rich.console import Console

from commands import command, environment
from otel_concurrency import __version__
from otel_concurrency._cli import CommandError, demo, demo_services, tree
from otel_concurrency._cli.spans import ExportedSpan, SpanId, Standing, parse, plant, summary
from otel_concurrency._generators import monitoring

HANDED_OFF = Counter(
    ["reserve_stock"] * 3
    + ["quote_shipping", "fulfil", "notify", "send_receipt", "follow_up", "reminder", "reconcile"]
)
"""The spans that the order service starts on the far side of a hand-off."""

STREAMED = ["stream_updates"] + ["look_up", "send_update"] * 2
"""The spans of the answer, and of the generator that it is streamed from."""

EVERYTHING = HANDED_OFF + Counter(["POST /orders", "validate_payment", "print_label", *STREAMED])


@dataclass(frozen=True)
class Line:
    """A printed row of a tree."""

    guides: str
    name: str
    thread: str
    remarks: str


ROW = re.compile(
    r"(?P<guides>[│├└─✗|`x -]*?)(?P<name>\w[\w/ ]*?) {2,}(?P<duration>[\d.]+ m?s)"
    r" +(?P<thread>\S+) +(?P<remarks>.*?) *"
)


def drawn(lines):
    """Return the rows of the tree that is printed in ``lines``."""
    matches = [match for match in map(ROW.fullmatch, lines) if match]
    return [Line(m["guides"], m["name"], m["thread"], m["remarks"]) for m in matches]


def two_trees(output):
    """Return the rows of the tree on the left, or above, and of the other one."""
    lines = output.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("library off"))
    beside = lines[first].find("library on")
    if beside > 0:
        return drawn(x[:beside] for x in lines[first:]), drawn(x[beside:] for x in lines[first:])
    second = next(i for i, line in enumerate(lines) if line.startswith("library on"))
    return drawn(lines[first:second]), drawn(lines[second:])


def orphans(rows):
    """Return the names of the rows that are marked as orphans."""
    return Counter(row.name for row in rows if "orphan: new trace" in row.remarks)


@pytest.fixture(scope="module")
def narrow():
    """Run the demo in a terminal of 80 columns."""
    return command("demo", COLUMNS="80")


@pytest.fixture(scope="module")
def wide():
    """Run the demo in a terminal of 150 columns, where little else is as it should be."""
    return command(
        "demo",
        COLUMNS="150",
        PATH="",  # as in a virtual environment that is not activated
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_SDK_DISABLED="true",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*",
        OTEL_PROPAGATORS="none",
        http_proxy="http://127.0.0.1:9",
    )


@pytest.fixture(params=["narrow", "wide"])
def shown(request):
    """Return a finished demo, in either width."""
    return request.getfixturevalue(request.param)


def test_demo_succeeds(shown):
    """The demo ends with status 0 and no complaint, whatever OpenTelemetry is configured to do."""
    assert (shown.returncode, shown.stderr) == (0, "")


def test_demo_without_the_library_loses_every_hand_off(shown):
    """With the library off every span behind a hand-off is a marked orphan without baggage."""
    off, _ = two_trees(shown.stdout)
    assert Counter(row.name for row in off) == EVERYTHING
    assert orphans(off) == HANDED_OFF
    for row in off:
        assert row.guides == "✗ " or row.name not in HANDED_OFF
        here = ("POST /orders", "validate_payment", *STREAMED)
        assert row.remarks.endswith("tenant=acme" if row.name in here else "baggage lost")


def test_demo_with_the_library_is_one_trace(shown):
    """With the library on every hand-off is a child of the payment's span and has the baggage."""
    _, on = two_trees(shown.stdout)
    assert Counter(row.name for row in on) == EVERYTHING
    assert {row.remarks for row in on if row.name != "reminder"} == {"tenant=acme"}
    depth = {row.name: len(row.guides) // 3 for row in on}
    assert depth == dict.fromkeys(HANDED_OFF, 2) | {
        "POST /orders": 0,
        "validate_payment": 1,
        "print_label": 3,
        "reminder": 0,
        "stream_updates": 1,
        "look_up": 2,
        "send_update": 1 if monitoring.IS_THERE else 2,
    }


def test_demo_without_the_library_confuses_a_stream_and_its_reader(shown):
    """With the library off what is done with each chunk is a child of the stream."""
    off, _ = two_trees(shown.stdout)
    assert {len(row.guides) // 3 for row in off if row.name == "send_update"} == {2}


def test_demo_links_what_arms_itself_again(shown):
    """The timer's second round is a trace of its own, and its link is drawn below it."""
    _, on = two_trees(shown.stdout)
    (reminder,) = (row for row in on if row.name == "reminder")
    assert reminder.remarks == "linked trace, tenant=acme"
    below = shown.stdout[shown.stdout.rindex("reminder ") :].splitlines()[1]
    assert re.search(r"→ link follow_up +trace [0-9a-f]{8}", below)


def test_demo_crosses_threads(shown):
    """The spans ran on threads of several makes, none of them the request's."""
    _, on = two_trees(shown.stdout)
    thread = {row.name: row.thread for row in on}
    assert thread["validate_payment"] == thread["POST /orders"]
    assert thread["reserve_stock"].startswith("warehouse_")
    assert thread["quote_shipping"].startswith("asyncio_")
    assert thread["reconcile"] == "MainThread"
    assert thread["POST /orders"] not in [thread[name] for name in HANDED_OFF]


def test_demo_sums_up(shown):
    """The last line says in a few words how the two runs differ."""
    last = shown.stdout.splitlines()[-1]
    assert last == "off: 1 trace + 10 orphans; on: 2 traces, 18 spans, 0 orphans"


def test_demo_fits_the_terminal(narrow, wide):
    """The trees stand side by side in a wide terminal, and below each other in a narrow one."""
    assert max(map(len, narrow.stdout.splitlines())) <= 80
    assert max(map(len, wide.stdout.splitlines())) <= 150
    assert re.search("library off.*library on", wide.stdout)
    assert not re.search("library off.*library on", narrow.stdout)


@pytest.mark.parametrize(
    ("setting", "lost"),
    [
        ("THREADING", ["notify", "follow_up", "reminder"]),
        ("FUTURES", ["reserve_stock"] * 3 + ["fulfil"]),
        ("SCHED", ["reconcile"]),
        ("QUEUE", ["send_receipt"]),
    ],
)
def test_demo_tells_what_is_lost(setting, lost):
    """Spans that lose context because a primitive is off are named; the status is 1."""
    result = command("demo", **{f"OTEL_PYTHON_CONCURRENCY_{setting}": "off"})
    _, on = two_trees(result.stdout)
    assert orphans(on) == Counter(lost)
    assert result.returncode == 1
    assert "lost their context: " in result.stderr
    for name in (*lost, f"OTEL_PYTHON_CONCURRENCY_{setting}=off"):
        assert name in result.stderr


def test_demo_is_red_where_context_is_lost():
    """Orphans are red in a terminal with colours."""
    result = command("demo", FORCE_COLOR="1")
    assert result.stdout.count("\x1b[1;31morphan: new trace") == 10


def test_demo_without_colours(narrow):
    """No escape sequence is printed where the output is not a terminal, no colour with NO_COLOR."""
    assert "\x1b" not in narrow.stdout
    colours = re.compile(r"\x1b\[(\d+;)*[349]\d[m;]")
    assert not colours.search(command("demo", FORCE_COLOR="1", NO_COLOR="1").stdout)


def test_demo_in_ascii():
    """The trees are drawn in ASCII where the output can show nothing else."""
    result = command("demo", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert result.stdout.isascii()
    assert "|- validate_payment" in result.stdout
    assert "`- stream_updates" in result.stdout


def test_demo_shows_why_the_service_failed(tmp_path):
    """What a service that fails has written to its standard error is shown; the status is 1."""
    (tmp_path / "sched.py").write_text("raise RuntimeError('no scheduler here')")
    result = command("demo", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "the order service" in result.stderr
    assert "ended with exit status 1" in result.stderr
    assert "RuntimeError: no scheduler here" in result.stderr


def test_demo_gives_a_stuck_service_up(monkeypatch):
    """A service that does not end in time is ended, and the error says so."""
    monkeypatch.setattr(demo_services, "_TIME_LIMIT", 0.01)
    with pytest.raises(CommandError, match="did not end within"):
        demo.run(None)


def test_demo_needs_opentelemetry_instrument(monkeypatch):
    """The error names the package that the missing command comes with."""
    monkeypatch.setattr(demo_services.sysconfig, "get_path", lambda *_: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandError, match="opentelemetry-instrumentation"):
        demo.run(None)


def test_ctrl_c_ends_the_services_and_nothing_else_is_said(tmp_path):
    """After Ctrl-C the status is 130, nothing is printed, and both services are gone."""
    (tmp_path / "sched.py").write_text(
        "import os, socket\n"
        "held = socket.create_connection(('127.0.0.1', int(os.environ['TEST_PORT'])))\n"
        "held.recv(1)\n"
    )
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(60)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "otel_concurrency", "demo"],
                env=environment(PYTHONPATH=str(tmp_path), TEST_PORT=str(listener.getsockname()[1])),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        )
        stack.callback(process.kill)
        services = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)
        assert (process.returncode, *output) == (130, "", "")
        for service in services:
            service.settimeout(60)
            assert service.recv(1) == b""


@pytest.mark.parametrize(
    ("blocked", "package"), [("rich", "rich"), ("opentelemetry.sdk", "opentelemetry-sdk")]
)
def test_missing_extra(tmp_path, blocked, package):
    """Without what the extra brings, a verb says what to install; the status is 2."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {blocked!r} or name.startswith({blocked + '.'!r}):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    result = command("demo", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert f"needs {package}." in result.stderr
    assert "pip install 'otel-concurrency[cli]'" in result.stderr
    assert command("--version", PYTHONPATH=str(tmp_path)).returncode == 0


def test_version():
    """--version prints the version of the distribution."""
    result = command("--version")
    assert (result.returncode, result.stdout) == (0, f"otel-concurrency {__version__}\n")


def test_help_names_the_verbs():
    """--help lists every verb."""
    result = command("--help")
    assert result.returncode == 0
    assert re.search(r"^ +demo +\w", result.stdout, re.MULTILINE)


def test_the_command_imports_nothing_that_another_verb_needs():
    """To start it takes neither an event loop nor a client of HTTP: only the demo uses them."""
    program = (
        "import sys\n"
        "from otel_concurrency._cli import demo, status, trace\n"
        "print({'asyncio', 'http.client', 'ssl'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


@pytest.mark.parametrize("arguments", [(), ("dmeo",)])
def test_called_wrongly(arguments):
    """A missing or unknown verb is an error that says how the command is used; the status is 2."""
    result = command(*arguments)
    assert result.returncode == 2
    assert "usage: otel-concurrency" in result.stderr
    assert all(argument in result.stderr for argument in arguments)


def span(name, parent=None, *, at=0, trace="a" * 32, links=(), kind="INTERNAL", thread="t"):
    """Return a span that is called by one letter; its identifier is made of it."""
    return ExportedSpan(
        trace_id=trace,
        span_id=name * 16,
        parent_id=parent and parent * 16,
        name=name,
        start_ns=at,
        end_ns=at + 1_500_000,
        kind=kind,
        attributes={"thread.name": thread},
        links=tuple(links),
    )


def outline(forest):
    """Return the tree of ``forest`` as it is drawn, without everything beside it."""
    return [
        row.guides + (row.span.name if row.link is None else f"→ {row.link.span_id[0]}")
        for row in tree.rows(forest)
    ]


def printed(forest, remark=lambda _: ("", "")):
    """Return the lines of ``forest``, drawn as a table."""
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(tree.table("heading", forest, remark))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_children_are_drawn_under_their_parents_in_time():
    """Siblings come in the order of their start, whatever the order in which they were exported."""
    spans = [
        span("d", "a", at=5),
        span("e", "b", at=9),
        span("c", "b", at=3),
        span("b", "a", at=2),
        span("a", at=1),
    ]
    assert outline(plant(spans)) == ["a", "├─ b", "│  ├─ c", "│  └─ e", "└─ d"]


def test_a_later_root_without_a_link_is_an_orphan():
    """Of several roots the first is the entry, and the others are orphans with their children."""
    forest = plant(
        [span("a", at=1), span("b", trace="b" * 32, at=2), span("c", "b", trace="b" * 32, at=3)]
    )
    assert [each.name for each in forest.orphans] == ["b"]
    assert forest.standing[SpanId("b" * 32, "c" * 16)] is Standing.CHILD
    assert summary(forest) == "1 trace + 1 orphan"
    assert printed(forest)[1:] == [
        "a     1.5 ms  t",
        "✗ b   1.5 ms  t  orphan: new trace",
        "└─ c  1.5 ms  t",
    ]


def test_every_request_is_an_entry():
    """Roots of kind SERVER or CONSUMER are entries, also where another root is earlier."""
    forest = plant(
        [
            span("a", trace="a" * 32, at=1),
            span("b", trace="b" * 32, at=2, kind="SERVER"),
            span("c", trace="c" * 32, at=3, kind="CONSUMER"),
        ]
    )
    assert [each.name for each in forest.orphans] == ["a"]
    assert forest.traces == 2


def test_a_linked_root_is_no_orphan():
    """A root with a link is drawn with an arrow to where it comes from."""
    forest = plant(
        [
            span("a", at=1),
            span("b", trace="b" * 32, at=2, links=[SpanId("a" * 32, "a" * 16)]),
            span("c", "b", trace="b" * 32, at=3),
        ]
    )
    assert outline(forest) == ["a", "b", "│  → a", "└─ c"]
    assert summary(forest) == "2 traces, 3 spans, 0 orphans"
    assert printed(forest)[2:4] == [
        "b            1.5 ms  t  linked trace",
        "│  → link a             trace aaaaaaaa",
    ]


def test_links_stand_inside_the_guides_of_their_tree():
    """A link of an inner span, and one to a span that is not there, keep the tree in line."""
    forest = plant(
        [
            span("a", at=1),
            span("b", "a", at=2, links=[SpanId("f" * 32, "f" * 16)]),
            span("c", "a", at=3, links=[SpanId("a" * 32, "b" * 16)]),
        ]
    )
    assert outline(forest) == ["a", "├─ b", "│     → f", "└─ c", "      → b"]
    assert printed(forest)[3].startswith("│     → link span ffffffffffffffff")


def test_a_missing_parent_is_named_as_such():
    """A span whose parent was not exported is a root, and not an orphan."""
    forest = plant([span("a", at=1), span("c", "b", at=2)])
    assert outline(forest) == ["a", "c"]
    assert forest.orphans == ()
    assert printed(forest)[2].endswith("parent not exported")


def test_a_parent_in_another_trace_is_not_a_parent():
    """Spans of different traces with equal identifiers are told apart."""
    forest = plant([span("a", at=1), span("b", "a", trace="b" * 32, at=2)])
    assert forest.standing[SpanId("b" * 32, "b" * 16)] is Standing.DETACHED


def test_a_long_chain_is_drawn():
    """The depth of a trace is not limited by the interpreter's recursion limit."""
    depth = sys.getrecursionlimit() + 10
    chain = [
        ExportedSpan("a" * 32, f"{i:016x}", f"{i - 1:016x}" if i else None, f"s{i}", i, i)
        for i in range(depth)
    ]
    *_, last = tree.rows(plant(chain))
    assert last.span.name == f"s{depth - 1}"


def test_no_spans():
    """Nothing is drawn, and nothing fails, where nothing was exported."""
    assert outline(plant([])) == []
    assert summary(plant([])) == "0 traces, 0 spans, 0 orphans"


def test_remarks_follow_what_the_tree_says():
    """What the verb has to say about a span stands in its row, as it is written."""
    forest = plant([span("a", at=1), span("b", trace="b" * 32, at=2)])
    rows = printed(forest, remark=lambda each: (f"[{each.name}]", "red"))
    assert rows[1].endswith("t  [a]")
    assert rows[2].endswith("t  orphan: new trace, [b]")


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [(0, "0.0 ms"), (420_000, "0.4 ms"), (31_000_000, "31 ms"), (2_460_000_000, "2.5 s")],
)
def test_durations(nanoseconds, words):
    """Durations are given in the unit and to the digits that matter."""
    assert tree.duration(nanoseconds) == words


def test_thread_names_are_short():
    """The target in the name of an unnamed thread is left out; given names are left alone."""
    assert span("a", thread="Thread-7 (process_request_thread)").thread == "Thread-7"
    assert span("a", thread="worker (eu)").thread == "worker (eu)"
    assert ExportedSpan("a" * 32, "a" * 16, None, "a", 0, 0).thread == ""


def test_spans_are_read_as_the_sdk_writes_them(exporter):
    """Identifiers, times, kind, attributes, links and resource survive the way through JSON."""
    provider = TracerProvider(resource=Resource({"service.name": "orders"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span("entry", kind=SpanKind.SERVER) as entry:
        origin = entry.get_span_context()
        with tracer.start_as_current_span("inner", attributes={"thread.name": "w"}):
            pass
    tracer.start_span("linked", links=[Link(origin)]).end()
    finished = exporter.get_finished_spans()
    inner, outer, linked = parse([each.to_json(indent=None) + "\n" for each in finished] + ["\n"])

    assert outer.id == SpanId(f"{origin.trace_id:032x}", f"{origin.span_id:016x}")
    assert (outer.name, outer.kind, outer.parent, outer.links) == ("entry", "SERVER", None, ())
    assert inner.parent == outer.id
    assert inner.thread == "w"
    assert linked.links == (outer.id,)
    assert linked.resource["service.name"] == "orders"
    for read, real in zip((inner, outer, linked), finished, strict=True):
        assert abs(read.start_ns - real.start_time) <= 1000
        assert abs(read.end_ns - real.end_time) <= 1000


def test_a_span_without_attributes_is_read():
    """The nulls that the SDK may write are read as nothing."""
    provider = TracerProvider()
    bare = provider.get_tracer("tests").start_span("bare")
    bare.end()
    provider.shutdown()
    exported = bare.to_json(indent=None).replace('"attributes": {}', '"attributes": null', 1)
    (read,) = parse([exported.replace('"links": []', '"links": null')])
    assert (dict(read.attributes), read.links) == ({}, ())
