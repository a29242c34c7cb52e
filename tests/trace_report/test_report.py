"""The report in the terminal: what is drawn of which spans, hand-offs and faults."""
# ruff: noqa: RUF001 - the signs are meant

from __future__ import annotations

import io
import itertools
import os

import pytest
from rich.console import Console

from otel_concurrency._cli import report as terminal
from otel_concurrency._trace_report.model import (
    CallSite,
    HandOff,
    Leak,
    Link,
    Orphan,
    Process,
    Report,
    Span,
    SpanId,
)
from otel_concurrency._trace_report.trees import Forest

MS = 1_000_000
_numbers = itertools.count(1)


def span(name, parent=None, *, start=0, took=2 * MS, trace=None, **more):
    """Return a span of the main thread, by default the root of a trace of its own."""
    number = next(_numbers)
    of = parent.id.trace_id if parent else trace or f"{number:032x}"
    return Span(
        SpanId(of, f"{number:016x}"),
        parent and parent.id,
        name,
        start * MS,
        None if took is None else start * MS + took,
        **{"pid": 1, "thread": "MainThread", **more},
    )


def hand_off(name="1-1", *, waited=MS, at="app.py:7"):
    """Return a hand-off to a pool."""
    site = os.path.join(os.getcwd(), at)
    call = "ThreadPoolExecutor.submit"
    return HandOff(name, "futures", call, site, 0, 1, "MainThread", attached_ns=waited)


def printed(*spans, width=120, encoding="utf-8", comparison=None, **more):
    """Return the lines that are printed of a report of ``spans``, without the first three."""
    report = Report(("app",), True, 0, 0, 5 * MS, spans=spans, **more)
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, width=width, highlight=False, markup=False, force_terminal=True)
    console._color_system = None
    if comparison is None:
        terminal.show(console, report)
    else:
        terminal.show_comparison(console, report, comparison)
    file.seek(0)
    lines = [line.rstrip() for line in file.read().replace("\x1b[0m", "").splitlines()]
    return lines if comparison else lines[3:]


def test_a_trace_is_drawn_as_a_tree():
    """Children stand below their parents, with how long they took and where that changes."""
    root = span("root", start=1, took=30 * MS)
    child = span("child", root, start=2, thread="pool_0")
    tree = printed(span("late", root, start=9), span("inner", child, start=3, pid=2), child, root)
    assert tree[:4] == [
        "root          30 ms  MainThread",
        "├─ child     2.0 ms  pool_0",
        "│  └─ inner  2.0 ms  MainThread, process 2",
        "└─ late      2.0 ms",
    ]


def test_a_hand_off_stands_with_the_span_that_it_led_to():
    """A span that was handed its work shows by what call, at which line, and how long it took."""
    root = span("root")
    child = span("child", root, thread="pool_0", hand_off="1-1")
    tree = printed(root, child, hand_offs=(hand_off(waited=80_000),))
    assert tree[1].endswith("pool_0      ⇢ ThreadPoolExecutor.submit app.py:7, waited 80 µs")


def test_a_task_is_named_where_it_changes():
    """Spans in asyncio's tasks show which one started them, once."""
    root = span("root", task="Task-1")
    same, other = span("same", root, task="Task-1"), span("other", root, start=1, task="Task-2")
    rows = printed(root, same, other)
    assert [row.split("ms", 1)[1].strip() for row in rows[:3]] == [
        "MainThread, Task-1",
        "",
        "Task-2",
    ]


def test_alike_spans_of_several_tasks():
    """Of alike spans that differ in their tasks alone, the tasks are counted."""
    root = span("root", task="Task-1")
    tree = printed(root, *(span("item", root, task=f"Task-{n}") for n in (2, 3)))
    assert tree[1].endswith("2.0 ms  2 tasks")


def test_files_of_what_is_installed_are_named_shortly():
    """A line of a package stands as one would import it, not with where it is installed."""
    site = os.path.join(os.sep, "venv", "site-packages", "anyio", "_core.py:7")
    site = CallSite("queue", "Queue.put", site, 1, 1, None, None, None)
    assert "Queue.put  anyio/_core.py:7  " in printed(call_sites=(site,))[2]


def test_spans_that_are_alike_are_drawn_once():
    """Alike siblings are one row with their number and the median of what they took."""
    root = span("root")
    items = [span("item", root, took=n * 10 * MS, thread=f"pool_{n}") for n in (1, 2, 9)]
    inner = [span("inner", item, thread=item.thread) for item in items]
    tree = printed(root, *items, *inner)
    assert tree[1:3] == ["└─ item ×3    20 ms  3 threads", "   └─ inner  2.0 ms"]


def test_traces_that_are_alike_are_drawn_once():
    """A thousand requests of one kind are a tree with its number; below, all is per request."""
    spans = []
    for n in range(1000):
        root = span("request", start=n)
        spans += [root, span("item", root, start=n), span("item", root, start=n)]
    assert printed(*spans)[:3] == [
        "request ×1,000  2.0 ms  MainThread",
        "└─ item ×2      2.0 ms",
        "",
    ]


@pytest.mark.parametrize(
    "difference",
    [{"name": "another"}, {"hand_off": "1-1"}, {"links": (Link(SpanId("a" * 32, "b" * 16)),)}],
    ids=lambda each: next(iter(each)),
)
def test_spans_that_are_not_alike_are_told_apart(difference):
    """Another name, another way there or a link make another kind of span."""
    root = span("root")
    one, other = span("one", root), span(**{"name": "one", **difference}, parent=root)
    forest = Forest(Report((), True, 0, 0, 0, spans=(root, one, other), hand_offs=(hand_off(),)))
    assert forest.below([root]) == [[one], [other]]


def test_links_are_arrows():
    """A link is a row below its span, with the name of what it leads to and why."""
    origin = span("origin")
    ours, theirs = Link(origin.id, "policy", "futures"), Link(SpanId("a" * 32, "b" * 16))
    tree = printed(origin, span("linked", start=1, links=(ours, theirs)))
    assert [line.split() for line in tree[2:4]] == [
        ["→", "link", "origin", "policy"],
        ["→", "link", "span", "b" * 16],
    ]


def test_an_orphan_is_marked_and_explained():
    """An orphan is marked in its tree, and told of below it by the number that stands there."""
    here = os.path.join(os.getcwd(), "app.py:3")
    orphans = [span("poll", start=n) for n in range(3)]
    told = [Orphan(each.id, "raw", f"lost at {here}", f"see {here}", here) for each in orphans]
    lines = printed(*orphans, orphans=tuple(told))
    assert lines[0].split("  ")[0] == "✗ poll ×3"
    assert lines[0].endswith("orphan: see 1")
    assert lines[2:5] == [
        "Orphans: spans that lost their parent",
        " 1  poll ×3: lost at app.py:3",
        "    see app.py:3",
    ]
    assert lines[-1].endswith("3 traces, 3 spans, 0 hand-offs, 3 orphans, 0 leaks")


def test_leaks_are_explained():
    """A leak is told of with its line, how often it was seen, and what to do."""
    lines = printed(
        span("s"), leaks=(Leak("left", "it is attached", "detach it", "x.py:1", count=4),)
    )
    assert lines[2:5] == [
        "Leaks: contexts that outlived their work, and telemetry that was lost",
        " 1   ×4: it is attached (x.py:1)",
        "    detach it",
    ]
    assert lines[-1].endswith("4 leaks")


def test_a_parent_that_was_not_seen():
    """A span whose parent is elsewhere begins a tree, and says so."""
    elsewhere = span("elsewhere")
    assert printed(span("here", elsewhere))[0].endswith("its parent was not seen")


def test_call_sites_are_listed_by_how_often_they_were_called():
    """Each line that hands work off is told of, the busiest first."""
    rare = CallSite("queue", "Queue.put", "b.py:2", 1, 0, None, None, None)
    busy = CallSite("futures", "submit", "a.py:1", 1200, 1199, 20_000, 3 * MS, 4000 * MS)
    lines = printed(call_sites=(rare, busy))
    assert [line.split() for line in lines[2:4]] == [
        ["futures", "submit", "a.py:1", "1,199", "1", "20", "µs", "3.0", "ms", "4.0", "s"],
        ["queue", "Queue.put", "b.py:2", "0", "1", "-", "-", "-"],
    ]


def test_processes_are_listed_where_there_are_several():
    """Each process of the program is named by its command."""
    processes = (Process(1, None, "python app.py", 0, 3 * MS), Process(2, 1, "child", 0))
    lines = printed(processes=processes)
    assert [line.split() for line in lines[:3]] == [
        ["2", "processes"],
        ["1", "3.0", "ms", "python", "app.py"],
        ["2", "child"],
    ]


def test_what_was_not_kept_is_said():
    """What the report does not have is told of in its last line."""
    lines = printed(span("kept"), dropped={"traces": 1, "spans": 1200})
    assert "2 traces, 1,201 spans, 0 hand-offs" in lines[-2]
    assert lines[-1] == "of these not kept (--limit): 1 trace, 1,200 spans"


def test_a_narrow_terminal():
    """What is said of a span, and the line that hands work off, have lines of their own."""
    root = span("POST /orders/{order_id}/confirmations")
    child = span("reserve_stock", root, thread="ThreadPoolExecutor-0_0", hand_off="1-1")
    below = span("in_stock", child, thread="ThreadPoolExecutor-0_0")
    lost = span("a name of fifty signs, for which there is no room!", thread=child.thread)
    orphan = Orphan(lost.id, "lost", "It is lost.", "Find it.", None, root.id)
    at = hand_off().site
    lines = printed(
        *(root, child, below, lost),
        width=80,
        hand_offs=(hand_off(),),
        orphans=(orphan,),
        call_sites=(CallSite("futures", "ThreadPoolExecutor.submit", at, 5, 4, MS, MS, MS),),
    )
    assert lines[:6] == [
        "POST /orders/{order_id}/confirmations             2.0 ms  MainThread",
        "└─ reserve_stock                                  2.0 ms  ThreadPoolExecutor-0_0",
        "   │  ⇢ ThreadPoolExecutor.submit app.py:7, waited 1.0 ms",
        "   └─ in_stock                                    2.0 ms",
        "✗ a name of fifty signs, for which there is no …  2.0 ms  ThreadPoolExecutor-0_0",
        "   orphan: see 1",
    ]
    assert lines[-5:-2] == [
        "call, at                   with context  without  wait p50     p95     max",
        "ThreadPoolExecutor.submit             4        1    1.0 ms  1.0 ms  1.0 ms",
        "  app.py:7",
    ]
    assert max(map(len, lines)) <= 80


def test_a_terminal_without_unicode():
    """Where the terminal knows ASCII alone, nothing else is printed."""
    root = span("root")
    items = [span("item", root, thread="t", hand_off="1-1") for _ in range(2)]
    lines = printed(root, *items, hand_offs=(hand_off(waited=5000),), encoding="ascii")
    assert all(line.isascii() for line in lines)
    assert lines[1].split("  ")[0] == "`- item x2"
    assert lines[1].endswith("=> ThreadPoolExecutor.submit app.py:7, waited 5 us")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_are_no_longer_than_the_terminal(width):
    """Whatever the terminal's width, no line is longer, and the hand-offs are all there."""
    root = span("a name that is rather long")
    child = span("another name", root, thread="pool_of_workers_0", hand_off="1-1")
    lines = printed(root, child, width=width, hand_offs=(hand_off(at="src/of/app.py:7"),))
    assert max(map(len, lines)) <= width
    assert "src/of/app.py:7" in "".join(line[-30:].strip() for line in lines) or width < 80


def test_a_deep_tree_is_folded():
    """However deep a trace is, it is drawn, and how much is folded stands there."""
    spans = [span("root")]
    for _ in range(5000):
        spans.append(span("deeper", spans[-1]))
    lines = printed(*spans)
    assert len(lines) < 70
    assert "4,980 more spans below" in "".join(lines)


def test_a_broad_tree_is_folded():
    """Of a trace with very many kinds of children so many are drawn as one can look at."""
    root = span("root")
    lines = printed(root, *(span(f"child {n}", span(f"at {n}", root)) for n in range(5)), root)
    assert not [line for line in lines if "more" in line]
    spans = [root]
    for n in range(500):
        child = span(f"child {n}", root, start=n)
        spans += [child, span("inner", child, start=n)]
    lines = printed(*spans)
    assert len(lines) < 70
    assert "941 more spans" in lines[60]


def test_very_many_kinds_of_traces():
    """Of very many kinds of traces the first are drawn, and the others counted."""
    lines = printed(*(span(f"kind {n}", start=n) for n in range(500)))
    assert lines[29].startswith("kind 29 ")
    assert "470 more traces of 470 other kinds" in lines[30]


def test_the_comparison_counts_both():
    """What the library changes stands side by side."""
    root = span("root")
    report = Report(("app",), True, 0, 0, 1, spans=(root,))
    lines = printed(span("a"), span("b"), comparison=report)
    assert [line.split() for line in lines if line.startswith(("traces", "spans"))] == [
        ["traces", "2", "1"],
        ["spans", "2", "1"],
    ]
