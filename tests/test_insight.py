"""What the observer tells of real programs, and what the analysis makes of it."""

from __future__ import annotations

import pytest

import watching


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
