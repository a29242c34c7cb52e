"""Says in plain words why a span is an orphan, which line is at fault, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Reason(NamedTuple):
    """The reason for an orphan, in words, and what to do about it."""

    name: str
    words: str
    advice: str
    site: str | None


def of(suspect: Mapping[str, Any]) -> Reason:
    """Return the reason that the facts of a suspicion amount to."""
    name = suspect["reason"]
    if name == "lost":
        name = _how_it_was_lost(suspect["by"])
    words, advice, site = _WORDS[name](suspect)
    return Reason(name, words, advice, site)


def _how_it_was_lost(by: Mapping[str, Any]) -> str:
    if by["policy"] != "off":
        return "not_carried"
    return "raw_thread" if by["call"].startswith("_thread.") else "primitive_off"


_Explanation = tuple[str, str, "str | None"]


def _handed_off(suspect: Mapping[str, Any]) -> str:
    by = suspect["by"]
    return f"handed off at {by['site']}{_inside(suspect)} by {by['call']}"


def _inside(suspect: Mapping[str, Any]) -> str:
    origin = suspect.get("origin")
    return f" inside span `{origin[2]}`" if origin and origin[2] else ""


def _is_off(suspect: Mapping[str, Any], primitive: str) -> str:
    has_library = suspect.get("library", True)
    return f"primitive {primitive} is off" if has_library else "this run had the library off"


def _switch(facts: Mapping[str, Any], setting: str) -> str:
    """Return what to do so that the library acts: ``setting``, or to switch all of it on."""
    return setting if facts.get("library", True) else "switch it on"


def _primitive_off(suspect: Mapping[str, Any]) -> _Explanation:
    by = suspect["by"]
    primitive = by["primitive"].upper()
    setting = f"OTEL_PYTHON_CONCURRENCY_{primitive}=parent"
    return (
        f"It is part of work that was {_handed_off(suspect)}; {_is_off(suspect, primitive)}.",
        f"Let the library carry it: {_switch(suspect, setting)}.",
        by["site"],
    )


def _raw_thread(suspect: Mapping[str, Any]) -> _Explanation:
    by = suspect["by"]
    return (
        f"Its thread was started at {by['site']}{_inside(suspect)} by {by['call']}, "
        f"and {_is_off(suspect, 'THREADING')}.",
        "Start a threading.Thread, or let the library carry it: "
        f"{_switch(suspect, 'OTEL_PYTHON_CONCURRENCY_THREADING=parent')}.",
        by["site"],
    )


def _not_carried(suspect: Mapping[str, Any]) -> _Explanation:
    return (
        f"It is part of work that was {_handed_off(suspect)}, and the context did not arrive: the "
        "name was bound before the library was switched on, or something has replaced the context.",
        "Switch the library on before the program's first import, and look for what attaches "
        "another context there.",
        suspect["by"]["site"],
    )


def _captured_late(suspect: Mapping[str, Any]) -> _Explanation:
    setting = f"OTEL_PYTHON_CONCURRENCY_{suspect['by']['primitive'].upper()}=parent"
    return (
        f"The context was captured at {suspect['at']}, where the work runs already: there is no "
        f"span in it. The work was {_handed_off(suspect)}.",
        f"Call `otel_concurrency.capture()` where the work is handed off, pass it along, and "
        f"work in `with handoff:`; or let the library carry it: {_switch(suspect, setting)}.",
        suspect["at"],
    )


def _explicit_context(suspect: Mapping[str, Any]) -> _Explanation:
    return (
        f"It was started with a `context=` that has no span{_while(suspect)}.",
        "Leave `context=` out, or pass one that has the span. For a trace of its own give it a "
        "link, or the kind SERVER or CONSUMER.",
        suspect["site"],
    )


def _context_of_another(suspect: Mapping[str, Any]) -> _Explanation:
    return (
        f"It was started with the `context=` of span `{suspect['other']}`, which has ended and "
        f"belongs to another trace{_while(suspect)}.",
        "Leave `context=` out, or pass the one of the work that it is part of.",
        suspect["site"],
    )


def _while(suspect: Mapping[str, Any]) -> str:
    if "by" in suspect:
        return f", in work that was {_handed_off(suspect)}"
    origin = suspect.get("origin")
    return f", while span `{origin[2]}` was current" if origin and origin[2] else ""


def _woken(suspect: Mapping[str, Any]) -> _Explanation:
    by = suspect["by"]
    return (
        f"Its thread was woken up by {by['call']} at {by['site']}{_inside(suspect)}; what is "
        "handed over beside a lock, in a list say, carries no context.",
        "Hand it over by a queue.Queue; or put `otel_concurrency.capture()` beside the item before "
        f"{by['site']}, and work on it in `with handoff:`{_around(suspect['site'])}.",
        by["site"],
    )


def _consumer_span(suspect: Mapping[str, Any]) -> _Explanation:
    return (
        f"It is part of an item that was {_handed_off(suspect)}. The consumer did not adopt the "
        f"item's context, since it had a span of its own: `{suspect['other']}`, started at "
        f"{suspect['at']}.",
        "End that span before the next item is got, or start none around the loop; or put "
        f"`otel_concurrency.capture()` beside the item before {suspect['by']['site']}, and work on "
        f"it in `with handoff:`{_around(suspect['site'])}.",
        suspect["at"],
    )


def _unknown_thread(suspect: Mapping[str, Any]) -> _Explanation:
    where = f": its first Python line is {suspect['at']}" if suspect["at"] else ""
    work, wrap = _named(suspect["work"])
    return (
        f"It was started from a thread that no known primitive made{where}. C code has "
        "made it, or a function that was bound before the observer was there.",
        f"Wrap {work} inside the span, where it is registered for that work alone: {wrap}. Where "
        f"it is registered once for all work, that captures too early: {_PUT_HEADERS}.",
        suspect["at"],
    )


def _captured_early(suspect: Mapping[str, Any]) -> _Explanation:
    work, wrap = _named(suspect["work"])
    by = f" The work was {_handed_off(suspect)}." if "by" in suspect else ""
    return (
        f"It is part of {work} at {suspect['at']}, which was wrapped where no span was current. "
        f"That captured too early.{by}",
        f"Wrap {work} inside the span, where the work is handed off: {wrap}. Where it is "
        f"registered once for all work, {_PUT_HEADERS}.",
        suspect["at"],
    )


_PUT_HEADERS = (
    "put `otel_concurrency.capture().headers()` into each message, and handle the message in "
    "`with otel_concurrency.HandOff.from_headers(headers):`"
)


def _named(work: str | None) -> tuple[str, str]:
    """Return how to name the function ``work``, and the call that wraps it."""
    is_named = work is not None and not work.startswith("<")  # `<lambda>`, `<module>`
    name = work if is_named else "callback"
    return f"`{name}`" if is_named else "the callback", f"`otel_concurrency.wrap({name})`"


def _around(site: str | None) -> str:
    return f", around {site}" if site else ""


def _starts_clean(suspect: Mapping[str, Any]) -> _Explanation:
    by = suspect["by"]
    return (
        f"Its thread was started at {by['site']}{_inside(suspect)} and runs {by['work']}, which "
        "starts clean by design: it belongs to its library, and outlives the request.",
        "Start it outside of spans; where its work belongs to a request, hand it over with "
        "`otel_concurrency.capture()`, and do it in `with handoff:`.",
        by["site"],
    )


def of_leak(leak: Mapping[str, Any]) -> Reason:
    """Return the reason that the facts of a leak amount to."""
    words, advice = _WORDS_OF_LEAKS[leak["reason"]](leak)
    return Reason(leak["reason"], words, advice, leak["site"])


def _left_attached(leak: Mapping[str, Any]) -> tuple[str, str]:
    of = f" of span `{leak['of'][2]}`" if leak["of"] and leak["of"][2] else ""
    where = f" at {leak['site']}" if leak["site"] else ""
    return (
        f"The context{of} that was attached{where} was not detached when that work was done: what "
        f"thread {leak['thread']} does next would run in it.",
        "Detach it in a `finally`, with the token that `attach` has returned.",
    )


def _ended_parent(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span was started on thread {leak['thread']} as a child of `{leak['of'][2]}`, which had "
        "ended and belongs to other work: its context has outlived it.",
        "Have long-lived work start in a context of its own, or let the library link it: "
        f"{_switch(leak, 'OTEL_PYTHON_CONCURRENCY_LINK_AFTER')}.",
    )


def _not_exported(leak: Mapping[str, Any]) -> tuple[str, str]:
    how = f" by {leak['call']} at {leak['site']}" if leak["call"] and leak["site"] else ""
    return (
        f"Process {leak['pid']} ended{how} with spans that were not exported: {leak['count']}.",
        "Flush the tracer provider before the process ends: "
        "`trace.get_tracer_provider().force_flush()`.",
    )


def _left_with_connection(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span on a connection was started as a child of `{leak['of'][2]}`, which had ended and "
        f"belongs to another request: its context was left with the connection{_where(leak)}, by "
        f"{leak['call']}.",
        f"Let the library keep connections out of requests: {_switch(leak, _ASYNCIO)}.",
    )


def _left_with_server(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span on a connection was started as a child of `{leak['of'][2]}`, inside which the "
        f"server was started{_where(leak)}.",
        "Start servers outside of spans, or let the library keep them out: "
        f"{_switch(leak, _ASYNCIO)}.",
    )


def _left_with_task(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span was started as a child of `{leak['of'][2]}` in work that goes on after its end: "
        f"{leak['call']}, called{_where(leak)}.",
        f"Start it outside of spans, or let the library keep it out: {_switch(leak, _ASYNCIO)}.",
    )


def _left_with_rounds(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span was started as a child of `{leak['of'][2]}` in a round of periodic work, which "
        f"{leak['call']} has started{_where(leak)}: each round prolongs that trace.",
        "Start it outside of spans, or let the library link each round: "
        f"{_switch(leak, _ASYNCIO)}.",
    )


def _left_with_worker(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span was started on thread {leak['thread']} as a child of `{leak['of'][2]}`, which had "
        "ended and belongs to another request: the thread or task was started inside that span"
        f"{_where(leak)}, by {leak['call']}, and now works for others.",
        "Start long-lived threads and tasks outside of spans, or let the library carry the context "
        f"of each item and action: {_switch(leak, _OF_WORKERS)}.",
    )


def _left_by_generator(leak: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"A span was started as a child of `{leak['of'][2]}`, which generator `{leak['call']}` has "
        f"made current{_where(leak)} and holds over its `yield`: the span is its consumer's.",
        "End or detach the span before each `yield`, or let the library keep the contexts apart "
        f"(Python 3.12 and later): {_switch(leak, 'OTEL_PYTHON_CONCURRENCY_GENERATORS=parent')}.",
    )


def _where(leak: Mapping[str, Any]) -> str:
    return f" at {leak['site']}" if leak["site"] else ""


_ASYNCIO = "OTEL_PYTHON_CONCURRENCY_ASYNCIO=parent"
_OF_WORKERS = "OTEL_PYTHON_CONCURRENCY_QUEUE=parent, and likewise SCHED and ASYNCIO"

_WORDS_OF_LEAKS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "left_attached": _left_attached,
    "left_by_generator": _left_by_generator,
    "left_with_connection": _left_with_connection,
    "left_with_rounds": _left_with_rounds,
    "left_with_server": _left_with_server,
    "left_with_task": _left_with_task,
    "left_with_worker": _left_with_worker,
    "ended_parent": _ended_parent,
    "not_exported": _not_exported,
}

_WORDS: Mapping[str, Callable[[Mapping[str, Any]], _Explanation]] = {
    "primitive_off": _primitive_off,
    "raw_thread": _raw_thread,
    "not_carried": _not_carried,
    "captured_early": _captured_early,
    "captured_late": _captured_late,
    "explicit_context": _explicit_context,
    "context_of_another": _context_of_another,
    "woken": _woken,
    "consumer_span": _consumer_span,
    "unknown_thread": _unknown_thread,
    "starts_clean": _starts_clean,
}
