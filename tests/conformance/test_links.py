"""Work that is linked to its origin by policy, instead of prolonging its trace."""

from __future__ import annotations

import contextvars
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from item_forms import STOCK
from links import (
    HANDING_OFF,
    Recording,
    assert_linked,
    named,
    start,
    tracer_of,
    work_in,
)
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import attach, detach, get_current, set_value
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import faults
from otel_concurrency._linking import origins as _links


@pytest.mark.parametrize("form", HANDING_OFF, ids=lambda form: form.name)
def test_what_is_handed_off_starts_a_trace_that_is_linked(form, instrument, tracer, exporter):
    """It has the baggage and every other key, no span, and one link from its root span."""
    instrument(policy="link", **form.settings)
    work, seen = work_in(tracer)

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        attach(set_value("key", "value"))
        with tracer.start_as_current_span("request") as span, form() as opened:
            opened.hand_off(work).wait()
        return span

    origin = without_context(request)

    spans = named(exporter)
    assert seen == [("value", "acme"), False]
    assert_linked(spans["work"], origin, reason="policy", primitive=form.setting)
    assert spans["child"].parent == spans["work"].context
    assert not spans["child"].links


@pytest.mark.parametrize("form", STOCK, ids=lambda form: form.name)
def test_an_item_starts_a_trace_that_is_linked(form, instrument, tracer, exporter):
    """Each item is linked to its own producer, by a policy of its own primitive."""
    instrument(**{form.setting: "link"})
    items = form.make()
    origins = {}

    def produce(name):
        with tracer.start_as_current_span(name) as span:
            items.put_nowait((name,))
        origins[name] = span

    def consume():
        for _ in range(3):
            (name,) = items.get_nowait()
            tracer.start_span(f"work {name}").end()
            tracer.start_span(f"more {name}").end()

    for name in "abc":
        without_context(produce, name)
    without_context(consume)

    spans = named(exporter)
    for name, origin in origins.items():
        for kind in ("work", "more"):
            found = spans[f"{kind} {name}"]
            assert_linked(found, origin, reason="policy", primitive=form.setting)


def test_one_primitive_links_and_the_others_are_parents(instrument, tracer, exporter):
    """The policy is each primitive's own."""
    instrument(threading="link")

    def request():
        with tracer.start_as_current_span("request") as span:
            thread = threading.Thread(target=lambda: tracer.start_span("thread").end())
            thread.start()
            thread.join(WAIT)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: tracer.start_span("pool").end()).result(WAIT)
        return span

    origin = without_context(request)

    spans = named(exporter)
    assert_linked(spans["thread"], origin, reason="policy", primitive="threading")
    assert spans["pool"].parent == origin.get_span_context()
    assert not spans["pool"].links


def test_a_hand_off_before_any_span_keeps_the_first_origin(instrument, tracer, exporter):
    """Work that only hands on is not an origin; work with a span of its own is one."""
    instrument(policy="link")

    def hand_on(work):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result(WAIT)

    def with_a_span():
        with tracer.start_as_current_span("second"):
            hand_on(lambda: tracer.start_span("third").end())

    def request():
        with tracer.start_as_current_span("request") as span:
            hand_on(lambda: hand_on(with_a_span))
        return span

    origin = without_context(request)

    spans = named(exporter)
    assert_linked(spans["second"], origin, reason="policy", primitive="futures")
    (link,) = spans["third"].links
    assert link.context == spans["second"].context
    assert len({span.context.trace_id for span in spans.values()}) == 3


@pytest.mark.parametrize("positional", [True, False])
def test_a_span_keeps_the_links_that_it_is_given(positional, instrument, tracer, exporter):
    """The link to the origin is one more, wherever the caller writes his own."""
    instrument(policy="link")
    given = Link(SpanContext(1, 2, is_remote=False))

    def work():
        if positional:
            tracer.start_span("work", None, trace.SpanKind.CONSUMER, None, [given]).end()
        else:
            tracer.start_span("work", links=[given]).end()

    def request():
        with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(1) as pool:
            pool.submit(work).result(WAIT)
        return span

    origin = without_context(request)
    assert [link.context for link in named(exporter)["work"].links] == [
        origin.get_span_context(),
        given.context,
    ]


def test_a_remote_parent_that_the_work_attaches_is_respected(instrument, tracer, exporter):
    """What a message says comes before where the work was handed off."""
    instrument(policy="link")
    remote = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def work():
        token = attach(propagate.extract({"traceparent": remote}))
        tracer.start_span("work").end()
        detach(token)

    def request():
        with tracer.start_as_current_span("request"), ThreadPoolExecutor(1) as pool:
            pool.submit(work).result(WAIT)

    without_context(request)
    work_span = named(exporter)["work"]
    assert f"{work_span.parent.span_id:x}" == "b7ad6b7169203331"
    assert not work_span.links


def test_an_explicit_context_without_a_span_is_linked_too(instrument, tracer, exporter):
    """Who passes on the context that the work has means the same as who does not."""
    instrument(policy="link")

    def request():
        with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: tracer.start_span("work", context=get_current()).end()).result(WAIT)
        return span

    origin = without_context(request)
    assert_linked(named(exporter)["work"], origin, reason="policy", primitive="futures")


def test_an_origin_that_is_not_sampled_is_linked(instrument):
    """Its context is valid, and that is what a link names; the sampler decides anew."""
    instrument(policy="link")
    tracer, exporter = tracer_of(ALWAYS_ON)
    origin = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(0)))

    def request():
        with trace.use_span(origin), ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: tracer.start_span("work").end()).result(WAIT)

    without_context(request)
    assert_linked(named(exporter)["work"], origin, reason="policy", primitive="futures")


@pytest.mark.parametrize("wrap", [lambda sampler: sampler, lambda sampler: ParentBased(sampler)])
def test_a_sampler_sees_the_link(wrap, instrument):
    """It is given when the span is created, and the span is a root to the sampler."""
    instrument(policy="link")
    sampler = Recording()
    tracer, exporter = tracer_of(wrap(sampler))

    def request():
        with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: tracer.start_span("work").end()).result(WAIT)
        return span

    origin = without_context(request)
    assert [link.context for link in sampler.asked["work"]] == [origin.get_span_context()]
    assert sampler.asked["request"] == []
    assert len(named(exporter)["work"].links) == 1


def test_a_provider_of_somebody_elses_gives_new_roots_and_one_warning(
    instrument, monkeypatch, caplog
):
    """Without the SDK no span can be given a link; the trace is not prolonged all the same."""
    monkeypatch.setattr(_links, "_checked", False)
    monkeypatch.setattr(faults, "_reported", set())
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    instrument(policy="link")
    origin = NonRecordingSpan(SpanContext(1, 2, is_remote=False))

    def request():
        with trace.use_span(origin), ThreadPoolExecutor(1) as pool:
            return [pool.submit(trace.get_current_span).result(WAIT) for _ in range(2)]

    assert without_context(request) == [trace.INVALID_SPAN] * 2
    (record,) = caplog.records
    assert "NoOpTracerProvider" in record.getMessage()


PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument(policy="link")
assert "opentelemetry.sdk.trace" not in sys.modules
from opentelemetry import trace
tracer = trace.get_tracer("made before there was a provider")
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
with tracer.start_as_current_span("request") as request, ThreadPoolExecutor(1) as pool:
    span = pool.submit(tracer.start_span, "work").result()
(link,) = span.links
assert link.context == request.get_span_context() and span.parent is None
"""


def test_the_sdk_may_come_later():
    """A provider that is imported and set after ``instrument()`` gives links as well."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nothing_is_linked_after_uninstrument(tracer, exporter):
    """The tracer is the plain one again."""
    plain = vars(type(tracer))["start_span"]
    ConcurrencyInstrumentor().instrument(policy="link")
    assert vars(type(tracer))["start_span"] is not plain
    ConcurrencyInstrumentor().uninstrument()
    assert vars(type(tracer))["start_span"] is plain


class Forms:
    """What others have put in the place of ``start_span``, before us."""

    @staticmethod
    def by_name(plain):
        def start_span(self, name, **kwargs):
            return plain(self, name, **kwargs)

        return start_span

    @staticmethod
    def with_a_default(plain):
        def start_span(self, *args, **kwargs):
            if len(args) < 2:
                kwargs.setdefault("context", None)
            return plain(self, *args, **kwargs)

        return start_span

    @staticmethod
    def by_a_global(plain):
        scope = {"plain": plain}
        exec("def start_span(self, *args, **kwargs): return plain(self, *args, **kwargs)", scope)
        return scope["start_span"]


@pytest.mark.parametrize("form", ["by_name", "with_a_default", "by_a_global"])
@pytest.mark.parametrize("after", [True, False])
def test_beside_other_patches_there_is_one_link(form, after, monkeypatch, tracer, exporter):
    """Whatever their signature, before us and after us, also where ours is stacked on theirs."""
    if after:
        ConcurrencyInstrumentor().instrument(policy="link")
    monkeypatch.setattr(Tracer, "start_span", getattr(Forms, form)(Tracer.start_span))
    if after:
        ConcurrencyInstrumentor().uninstrument()
    ConcurrencyInstrumentor().instrument(policy="link")

    def request():
        with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: tracer.start_span("work").end()).result(WAIT)
        return span

    try:
        origin = without_context(request)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert_linked(named(exporter)["work"], origin, reason="policy", primitive="futures")


@pytest.mark.parametrize("form", ["by_name", "with_a_default", "by_a_global"])
def test_beside_other_patches_a_span_is_one(form, monkeypatch, tracer, exporter):
    """The first span after an item is the item's, though it goes through two of our patches."""
    ConcurrencyInstrumentor().instrument()
    monkeypatch.setattr(Tracer, "start_span", getattr(Forms, form)(Tracer.start_span))
    ConcurrencyInstrumentor().uninstrument()
    ConcurrencyInstrumentor().instrument()
    items = queue.Queue()

    def consume():
        items.get()
        with pytest.raises(queue.Empty):
            items.get_nowait()
        tracer.start_span("work").end()
        tracer.start_span("later").end()

    try:
        with tracer.start_as_current_span("producer") as producer:
            items.put(1)
        without_context(consume)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert named(exporter)["work"].parent.span_id == producer.get_span_context().span_id
    assert named(exporter)["later"].parent is None


@pytest.mark.alone
def test_the_environments_provider_is_not_loaded_for_a_link(instrument, monkeypatch):
    """To look whether spans can be linked sets no provider: the program is about to set its own."""
    monkeypatch.setattr(_links, "_checked", False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")
    instrument(policy="link")

    def request():
        attach(trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote=False))))
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(trace.get_current_span).result(WAIT)

    assert without_context(request) is trace.INVALID_SPAN
    assert trace._TRACER_PROVIDER is None


@pytest.mark.parametrize("positional", [True, False])
def test_who_patched_before_us_is_called_as_the_tracer_was(
    positional, monkeypatch, tracer, exporter
):
    """What the caller passed by name still comes by name; the link is one more argument."""
    calls = []
    plain = Tracer.start_span

    def patched(self, *args, **kwargs):
        calls.append((args[0] if args else kwargs["name"], [*kwargs]))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Tracer, "start_span", patched)
    ConcurrencyInstrumentor().instrument(policy="link")

    def work():
        if positional:
            tracer.start_span("work", None, trace.SpanKind.CLIENT, None, ()).end()
        else:
            tracer.start_span("work", attributes={"key": "value"}, kind=trace.SpanKind.CLIENT).end()

    def request():
        with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(1) as pool:
            pool.submit(work).result(WAIT)
        return span

    try:
        origin = without_context(request)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert Tracer.start_span is patched
    assert calls[-1] == ("work", [] if positional else ["attributes", "kind", "links"])
    found = named(exporter)["work"]
    assert found.kind is trace.SpanKind.CLIENT
    assert_linked(found, origin, reason="policy", primitive="futures")


def test_a_fault_costs_no_span(instrument, tracer, exporter, monkeypatch, caplog):
    """The span starts, without a link, and the fault is in the log once."""
    instrument(policy="link")

    def fail(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(_links, "pending", fail)
    for _ in range(2):
        flow = contextvars.Context()
        flow.run(lambda: attach(set_value("key", "value")))
        start(tracer, flow)
    assert len(exporter.get_finished_spans()) == 2
    assert len([record for record in caplog.records if "a fault of ours" in record.message]) == 1
