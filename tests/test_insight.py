"""What the observer tells of real programs, and what the analysis makes of it."""

from __future__ import annotations

import sys

import pytest

import watching

BROKEN = {
    "raw_thread": ("raw_thread", {"library": False}),
    "primitive_off": ("primitive_off", {"OTEL_PYTHON_CONCURRENCY_QUEUE": "off"}),
    "captured_late": ("captured_late", {"library": False}),
    "never_detached": ("left_attached", {}),
    "condition": ("woken", {}),
    "consumer_span": ("consumer_span", {}),
    "not_exported": ("not_exported", {}),
    "context_without_span": ("explicit_context", {}),
    "thread_of_a_library": ("starts_clean", {}),
}
"""Programs that lose their context: what is said of each, and how it is run to be broken."""

if sys.platform == "linux":
    BROKEN["thread_of_c"] = ("unknown_thread", {})


@pytest.mark.parametrize("library", [True, False], ids=["on", "off"])
def test_calls_are_seen_with_their_sites(tmp_path, library):
    """Each call is a hand-off with the line that made it, whether or not it carries the context."""
    report = watching.run(tmp_path, "calls.py", library=library)
    source = (watching.APPS / "calls.py").read_text().splitlines()
    spans = {span.name: span for span in report.spans}
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    handed_off = [span for span in report.spans if span.hand_off]
    assert len(handed_off) == len(spans) - 2 == 9
    for span in handed_off:
        by = hand_offs[span.hand_off]
        assert by.call == span.name
        assert by.origin in (spans["request"].id, spans["request of a loop"].id)
        assert by.call.rpartition(".")[2] in source[int(by.site.rpartition(":")[2]) - 1]
        assert by.to_thread == span.thread
        assert by.waited_ns is not None
        carried = library or span.name == "asyncio.to_thread"
        assert by.carried == carried == (span.parent == by.origin), span
    assert report.exit_status == 0


def test_a_call_that_does_not_carry_makes_an_orphan(tmp_path):
    """Without the library each root in work that was handed off is an orphan, and says by what."""
    report = watching.run(tmp_path, "calls.py", library=False)
    names = {span.id: span.name for span in report.spans}
    by = {hand_off.call: hand_off for hand_off in report.hand_offs}
    orphans = {names[orphan.span]: orphan for orphan in report.orphans}
    assert set(orphans) == set(by) - {"asyncio.to_thread"}
    for call, orphan in orphans.items():
        assert orphan.site == by[call].site
        assert orphan.origin == by[call].origin


def test_a_call_that_carries_makes_no_orphan(tmp_path):
    """With the library there are no orphans, and every call site says that it carries."""
    report = watching.run(tmp_path, "calls.py")
    assert report.orphans == ()
    assert [(site.count, site.with_context) for site in report.call_sites] == [(1, 1)] * 9


@pytest.mark.parametrize("name", BROKEN)
def test_the_line_at_fault_is_named(tmp_path, name):
    """Of a program that loses its context the report names the line at fault, and nothing else."""
    reason, settings = BROKEN[name]
    program = f"broken/{name}.py"
    report = watching.run(tmp_path, program, **settings)
    found = (*report.orphans, *report.leaks)
    line = watching.line_at_fault(program)
    assert {(one.reason, one.site) for one in found} == {(reason, line)}
    for one in found:
        assert line in one.words or one.span in {
            span.id for span in report.spans if span.site == line
        }
        assert one.advice


@pytest.mark.parametrize("name", ["never_detached", "not_exported"])
def test_a_leak_is_found_without_the_library(tmp_path, name):
    """What outlives its work, or is lost with its process, is found with the library off too."""
    reason, _ = BROKEN[name]
    report = watching.run(tmp_path, f"broken/{name}.py", library=False)
    assert [leak.reason for leak in report.leaks] == [reason]
    assert [leak.site for leak in report.leaks] == [watching.line_at_fault(f"broken/{name}.py")]


def test_a_leak_tells_how_often_it_happens_and_to_whom(tmp_path):
    """One line that leaks is one leak, with its count and a span that it happened to."""
    report = watching.run(tmp_path, "broken/never_detached.py", library=False)
    (leak,) = report.leaks
    (unrelated,) = [span for span in report.spans if span.name == "unrelated"]
    assert (leak.count, leak.span) == (3, unrelated.id)
