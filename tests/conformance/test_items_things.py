"""Things that are kept in queues: who takes one out and puts it back hands nothing on.

No list names these queues. They are told from work by what comes back, so beside every kind of pool
there is a kind of work here that must not be taken for one: jobs that are tried again, workers that
hold a span of their own, results that are collected inside a request.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import queue
import threading
from dataclasses import dataclass

import pytest
from forms import WAIT, without_context
from item_forms import FORMS, STOCK
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current
from test_items import forms

from interpreters import weak_reference
from otel_concurrency._items import loans

pytestmark = pytest.mark.usefixtures("instrumented")

exact = [form for form in FORMS if form.exact]
kept = [form for form in exact if "tamping" not in form.name]
"""Where what is put is what is got, and no new wrapper around it."""
threaded = [form for form in STOCK if not form.asynchronous]


class Connection:
    """A thing that can be told from others."""

    def __lt__(self, other):
        return id(self) < id(other)


class Equal(Connection):
    """A thing that cannot."""

    def __eq__(self, other):
        return isinstance(other, Equal)

    def __hash__(self):
        return 1


class Slotted:
    """A thing that cannot be referred to weakly."""

    __slots__ = ()

    def __lt__(self, other):
        return id(self) < id(other)


class Pool:
    """A queue of things, as a program would use it; who has one notes whose a span is then."""

    def __init__(self, form, spans, make=Connection):
        self.queue = form.make()
        self.form, self.spans, self.make = form, spans, make

    def fill(self, number=1):
        """Put new things."""
        for _ in range(number):
            self.form.put(self.queue, self.make())

    def take(self):
        """Take a thing out, or make one."""
        try:
            return self.queue.get_nowait()
        except self.form.empty:
            return self.make()

    def give_back(self, thing):
        """Put a thing back."""
        self.form.put(self.queue, thing)

    @contextlib.contextmanager
    def thing(self):
        """Have a thing for a while."""
        thing = self.take()
        try:
            yield thing
        finally:
            self.give_back(thing)

    def use(self):
        """Return whose a span is while a thing is used."""
        with self.thing():
            return self.spans.parent()

    def request(self, name, use=None):
        """Use a thing inside a span, and with baggage, in a flow of its own."""

        def handle():
            token = attach(baggage.set_baggage("tenant", name, Context()))
            with self.spans.start_as_child(name):
                parent = (use or self.use)()
            detach(token)
            return parent

        return without_context(handle)

    def check(self, use=None):
        """Use a thing outside of everything; the flow is to be there still."""

        def handle():
            parent = (use or self.use)()
            assert baggage.get_all() == {}
            assert self.spans.parent() is None
            return parent

        return without_context(handle)


@pytest.fixture
def pool(spans):
    """Return what makes a pool."""
    return lambda form, make=Connection: Pool(form, spans, make)


# Pools


@forms(exact)
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("make", [Connection, Equal, Slotted])
def test_a_pool_that_was_filled_before(form, number, make, pool):
    """A check is a root, before the first request as after any number of them."""
    things = pool(form, make)
    things.fill(number)
    assert things.check() is None
    for n in range(4):
        assert things.request(f"request {n}") == f"request {n}"
        for _ in range(number):
            assert things.check() is None


@forms(exact)
@pytest.mark.parametrize("first", ["a request", "a check"])
def test_a_pool_that_is_filled_when_something_is_needed(form, first, pool):
    """What a request has made, since there was nothing, is no work for whoever takes it next."""
    things = pool(form)
    if first == "a check":
        assert things.check() is None
    for n in range(3):
        assert things.request(f"request {n}") == f"request {n}"
        assert things.check() is None
    assert things.queue.qsize() == 1


@forms(kept)
def test_a_pool_that_is_made_inside_the_first_request_that_uses_it(form, pool):
    """What the request has not taken out itself is as little work as what it has."""
    things = pool(form)

    def first():
        things.fill(4)
        return things.use()

    assert things.request("first", first) == "first"
    taken = []

    def check():
        taken.append(things.take())
        return things.spans.parent()

    assert [things.check(check) for _ in range(4)] == [None] * 4
    assert len({id(thing) for thing in taken}) == 4


@forms([form for form in STOCK if form.bounded])
def test_a_pool_of_bounded_size_that_is_waited_for(form, pool):
    """So is one that cannot hold more than it has."""
    things = pool(form)
    things.queue = form.make(2)
    things.fill(2)
    for n in range(3):
        assert things.request(f"request {n}") == f"request {n}"
        assert [things.check() for _ in range(2)] == [None, None]


@forms(exact)
@pytest.mark.parametrize("token", [None, 1, "permit"])
def test_permits_that_are_the_same_object(form, token, pool):
    """A permit is no object of its own, and still nobody's."""
    if form.takes == "sortable" and token is None:
        token = 2
    permits = pool(form, lambda: token)
    permits.fill()
    for n in range(3):
        assert permits.request(f"request {n}") == f"request {n}"
        assert permits.check() is None


@forms(exact)
def test_a_pool_of_places_that_are_filled_later(form, pool):
    """A place for a connection is taken out, and a connection comes in its place."""
    things = pool(form, lambda: (0,))

    def use():
        things.take()
        parent = things.spans.parent()
        things.give_back((1,))
        return parent

    things.fill(2)
    for n in range(3):
        assert things.request(f"request {n}", use) == f"request {n}"
        assert things.check(use) is None


@forms(exact)
def test_a_wrapper_that_is_made_anew_for_each_return(form, pool):
    """What a request puts in the place of what it has taken out is not its work either."""
    things = pool(form, lambda: (0, "connection"))
    things.fill()

    def use():
        age, connection = things.take()
        parent = things.spans.parent()
        things.give_back((age + 1, connection))
        return parent

    for n in range(3):
        assert things.request(f"request {n}", use) == f"request {n}"
        assert things.check(use) is None


@forms(kept)
@pytest.mark.parametrize("round_it", ["around", "from the take on", "between", "up to the return"])
@pytest.mark.parametrize("flows", ["one flow", "a flow each"])
@pytest.mark.parametrize("requests", [False, True])
def test_who_takes_and_returns_for_ever(form, round_it, flows, requests, pool, spans):
    """Each round is a trace of its own, wherever in it the span begins and ends."""
    things = pool(form)
    things.fill()
    if requests:
        things.request("request")
    one_flow = contextvars.Context()
    traces = []

    def span(n):
        return spans.start_as_child(f"round {n}", traces)

    def poll(n):
        with contextlib.ExitStack() as outer:
            if round_it == "around":
                outer.enter_context(span(n))
            thing = things.take()
            with contextlib.ExitStack() as inner:
                if round_it != "around":
                    inner.enter_context(span(n))
                if round_it == "between":
                    inner.close()
                things.give_back(thing)

    for n in range(5):
        (one_flow if flows == "one flow" else contextvars.Context()).run(poll, n)

    if not requests and "the" in round_it and (flows == "a flow each" or "Simple" in form.name):
        return  # what was taken before the first context was not noted, and may be a job
    assert len(set(traces)) == 5


def test_things_that_threads_share(pool):
    """Requests and checks that race for a few things are each in their own context."""
    things = pool(STOCK[0])
    things.fill(2)
    wrong = []

    def serve(n):
        for m in range(50):
            with things.spans.start_as_child(f"{n}.{m}"):
                if things.use() != f"{n}.{m}":
                    wrong.append((n, m))

    def check():
        wrong.extend(1 for _ in range(50) if things.use() is not None)

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(3)]
    threads += [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert wrong == []


@forms(threaded)
@pytest.mark.parametrize("make", [Connection, lambda: (0,)], ids=["known", "not known"])
def test_a_thing_that_is_taken_and_returned_by_different_threads(form, make, pool):
    """As with a framework that runs both halves of a dependency on any thread of a pool."""
    things = pool(form, make)
    things.fill()

    def on_a_thread(function, *args):
        context, results = contextvars.copy_context(), []
        thread = threading.Thread(
            target=context.run, args=(lambda: results.append(function(*args)),)
        )
        # In its starter's span, as what it hands over to is no worker.
        thread.start()
        thread.join(WAIT)
        return results[0]

    def use():
        thing = on_a_thread(things.take)
        parent = things.spans.parent()
        on_a_thread(things.give_back, thing)
        return parent

    for n in range(3):
        assert things.request(f"request {n}", use) == f"request {n}"
        assert things.check() is None


@forms(exact)
def test_a_thing_that_is_taken_in_one_span_and_returned_in_another(form, pool):
    """All spans of a request are one trace."""
    things = pool(form)

    def use():
        with things.spans.start_as_child("take"):
            thing = things.take()
        parent = things.spans.parent()
        with things.spans.start_as_child("return"):
            things.give_back(thing)
        return parent

    for n in range(3):
        assert things.request(f"request {n}", use) == f"request {n}"
        assert things.check() is None


@forms(exact)
def test_a_worker_that_uses_a_thing_while_it_handles_an_item(form, pool, spans):
    """Inside a span of the item's work, or after it: nothing of the item goes with the thing."""
    things, jobs = pool(form), queue.Queue()
    things.fill()

    def work():
        jobs.get()
        with spans.start_as_child("handle"):
            thing = things.take()
            parent = spans.parent()
        things.give_back(thing)
        return parent

    for n in range(3):
        STOCK[0].put_under(spans, f"job {n}", jobs, n)
        assert without_context(work) == "handle"
        assert things.check() is None


def in_a_thread(function):
    """Call ``function`` in a thread that is started here; return what it returns."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join(WAIT)
    return returned.pop()


@forms(kept)
@pytest.mark.parametrize("make", [Connection, Slotted])
@pytest.mark.parametrize("known", ["inside spans", "in threads of requests"])
def test_a_thread_of_a_request_that_takes_a_thing_before_its_first_span(
    form, make, known, pool, spans
):
    """It has been handed no work, and goes on with that of the request."""
    things = pool(form, make)
    things.fill()
    use = None if known == "inside spans" else lambda: in_a_thread(things.use)
    for n in range(2):  # by then something has come back twice
        things.request(f"request {n}", use)
    assert things.check() is None
    for n in range(2, 5):
        name = f"request {n}"
        assert things.request(name, lambda: in_a_thread(things.use)) == name
        assert things.check() is None


@forms(kept)
def test_a_worker_that_takes_a_thing_before_the_first_span_for_its_item(form, pool, spans):
    """The thing is no part of its work, and no other item."""
    things, jobs = pool(form), queue.Queue()
    things.fill()

    def work():
        jobs.get()
        return things.use()

    handled = []
    for n in range(5):
        STOCK[0].put_under(spans, f"job {n}", jobs, n)
        handled.append(without_context(work))
        assert things.check() is None
    assert handled[2:] == ["job 2", "job 3", "job 4"]


STEPS = [(form, "takes") for form in kept] + [(form, "finds none") for form in kept]
STEPS += [(form, "waits") for form in kept if not form.asynchronous]  # else its loop's task waits


@pytest.mark.parametrize(("form", "step"), STEPS, ids=str)
def test_a_worker_goes_on_with_its_item_after_it_took_a_thing(form, step, pool, spans):
    """Also where it has made a span for the item before, and where it had to wait for the thing."""
    things, jobs = pool(form), queue.Queue()
    things.fill()
    for n in range(3):
        assert things.request(f"request {n}") == f"request {n}"

    def work():
        jobs.get()
        assert spans.parent() == "job"
        if step == "waits":
            threading.Timer(0.05, lambda: without_context(things.give_back, held)).start()
        thing = things.queue.get() if step == "waits" else things.take()
        parents = [spans.parent()]
        things.give_back(thing)
        return [*parents, spans.parent()]

    STOCK[0].put_under(spans, "job", jobs, 1)
    held = None if step == "takes" else without_context(things.take)
    assert without_context(work) == ["job", "job"]
    assert things.check() is None


@forms([form for form in kept if form.name.startswith("SimpleQueue")])
@pytest.mark.parametrize("keywords", [{"block": False}, {"timeout": 0.001}], ids=str)
def test_a_worker_that_finds_no_thing_after_it_was_switched_off_lets_go(
    form, keywords, pool, spans, instrumented
):
    """A pool that was known is a queue as any other then. Other queues have no hooks any more."""
    things, jobs = pool(form), queue.Queue()
    things.fill()
    for n in range(3):
        assert things.request(f"request {n}") == f"request {n}"
    STOCK[0].put_under(spans, "job", jobs, 1)
    without_context(things.take)

    def work():
        jobs.get()
        assert spans.parent() == "job"
        without_context(instrumented.uninstrument)
        with pytest.raises(form.empty):
            things.queue.get(**keywords)
        return spans.parent()

    assert without_context(work) is None


@forms(kept)
def test_a_thread_that_outlives_its_request_uses_a_thing(form, pool, spans):
    """It lives on, and what it does is no part of the request."""
    things = pool(form)
    things.fill()
    for n in range(3):
        assert things.request(f"request {n}") == f"request {n}"
    over, seen = threading.Event(), []

    def live_on():
        assert over.wait(WAIT)
        seen.append(things.use())

    thread = threading.Thread(target=live_on)
    with spans.current("request"):
        thread.start()
    over.set()
    thread.join(WAIT)
    assert seen == [None]


@forms(kept)
def test_a_worker_that_was_started_in_a_request_and_keeps_what_it_takes(form, pool, spans):
    """Jobs that were put outside of everything are handled there, though some came back."""
    jobs, seen = pool(form), []
    jobs.fill(6)

    def work():
        for _ in range(2):
            jobs.give_back(jobs.take())
        for _ in range(3):
            jobs.take()
            seen.append(spans.parent())

    with spans.current("starter"):
        in_a_thread(work)
        in_a_thread(lambda: seen.append((jobs.take(), spans.parent())[1]))
    assert seen[1:] == [None, None, None]


def test_nothing_of_a_thing_is_kept_alive(pool, no_collector):
    """What was taken out dies when the program drops it, and a context when its request ends."""
    things = pool(STOCK[0])
    things.fill()
    dead = []

    def drop():
        thing = things.take()
        dead.extend((weak_reference(thing), weak_reference(get_current())))
        del thing

    things.request("request", drop)
    assert [reference() for reference in dead] == [None, None]


# Work beside them


@forms(kept)
@pytest.mark.parametrize("inside", [False, True], ids=["after its span", "inside its span"])
@pytest.mark.parametrize("others", [0, 2])
def test_a_job_that_is_put_back_keeps_its_producer(form, inside, others, pool, spans):
    """At the first try and at the tenth."""
    jobs = pool(form)
    tries = []

    def try_it(job):
        with spans.start_as_child("try") as span:
            tries.append((job, spans.name(span.parent)))
            if inside:
                jobs.give_back(job)
        if not inside:
            jobs.give_back(job)

    def work():
        for _ in range(10 * (1 + others)):
            try_it(form.get(jobs.queue))

    put = {}
    for n in range(1 + others):
        put[Connection()] = f"producer {n}"
    for job, producer in put.items():
        form.put_under(spans, producer, jobs.queue, job)
    without_context(work)

    assert len(tries) == 10 * (1 + others)
    assert [producer for job, producer in tries] == [put[job] for job, _ in tries]


@forms(exact)
def test_a_job_that_was_produced_outside_of_everything_is_tried_there(form, pool, spans):
    """Between jobs that have a producer."""
    jobs = pool(form)
    put = {Connection(): producer for producer in ("a", None, "b", None)}
    for job, producer in put.items():
        form.put_under(spans, producer, jobs.queue, job)
    tries = []

    def work():
        for _ in range(20):
            job = form.get(jobs.queue)
            tries.append((job, spans.parent()))
            jobs.give_back(job)

    without_context(work)

    assert tries == [(job, put[job]) for job, _ in tries]


@forms(exact)
def test_workers_that_hold_a_span_of_their_own(form, pool, spans):
    """They keep it; whoever has none handles the next jobs under these jobs' producers."""
    jobs = pool(form)

    def busy():
        with spans.current("worker"):
            form.get(jobs.queue)
            return spans.parent()

    def idle():
        form.get(jobs.queue)
        return spans.parent()

    for n in range(8):
        form.put_under(spans, f"first {n}", jobs.queue, Connection())
        assert without_context(busy) == "worker"
        form.put_under(spans, f"second {n}", jobs.queue, Connection())
        assert without_context(idle) == f"second {n}"


@forms(kept)
def test_a_worker_with_a_span_of_its_own_that_puts_a_job_back(form, pool, spans):
    """The job is nobody's from then on; the others are their producers' as before."""
    jobs = pool(form)
    put = {Connection(): f"producer {n}" for n in range(4)}
    for job, producer in put.items():
        form.put_under(spans, producer, jobs.queue, job)

    def busy():
        with spans.current("worker"):
            job = form.get(jobs.queue)
            jobs.give_back(job)
            return job

    def idle():
        job = form.get(jobs.queue)
        return job, spans.parent()

    again = without_context(busy)
    handled = dict(without_context(idle) for _ in put)

    assert handled == put | {again: None}


@forms(exact)
def test_what_such_a_worker_puts_besides_is_its_own(form, pool, spans):
    """A job that follows from another one's work belongs to that."""
    jobs = pool(form)
    form.put_under(spans, "producer", jobs.queue, Connection())

    def busy():
        with spans.current("worker"):
            form.get(jobs.queue)
            form.put(jobs.queue, Connection())

    def idle():
        form.get(jobs.queue)
        return spans.parent()

    without_context(busy)
    assert without_context(idle) == "worker"


@forms(exact)
def test_results_that_are_collected_inside_a_request(form, pool, spans):
    """The request keeps its span; what is left over is handled where it came from."""
    results = pool(form)

    def collect():
        with spans.current("request"):
            seen = []
            for n in range(3):
                form.put_under(spans, f"helper {n}", results.queue, Connection())
                form.get(results.queue)
                seen.append(spans.parent())
            with pytest.raises(form.empty):
                results.queue.get_nowait()
            return seen

    def idle():
        form.get(results.queue)
        return spans.parent()

    for n in range(5):
        assert without_context(collect) == ["request"] * 3
        form.put_under(spans, f"late {n}", results.queue, Connection())
        assert without_context(idle) == f"late {n}"


@forms(exact)
def test_a_producer_that_puts_the_same_object_again_and_again(form, pool, spans):
    """A function, say, that is to be called: each time it is work for whoever takes it."""
    job = Connection()
    jobs = pool(form, lambda: job)

    def idle():
        assert form.get(jobs.queue) is job
        return spans.parent()

    def busy():
        with spans.current("worker"):
            return form.get(jobs.queue)

    for n in range(6):
        form.put_under(spans, f"producer {n}", jobs.queue, job)
        assert without_context(idle) == f"producer {n}"
        form.put_under(spans, f"another {n}", jobs.queue, job)
        without_context(busy)


@forms(exact)
def test_a_worker_that_puts_what_it_finds(form, pool, spans):
    """A crawler: what follows from an item belongs to that item's work, whoever takes it."""
    jobs = pool(form)
    form.put_under(spans, "producer", jobs.queue, Connection())
    parents = []

    def crawl():
        for n in range(6):
            form.get(jobs.queue)
            with spans.start_as_child(f"page {n}") as span:
                parents.append(spans.name(span.parent))
                form.put(jobs.queue, Connection())

    without_context(crawl)

    assert parents == ["producer", *(f"page {n}" for n in range(5))]


@dataclass(slots=True)
class Page:
    """Work without weak references, where the next takes the place of the last in memory."""

    address: str
    depth: int = 1
    crawler: object = len

    def __lt__(self, other):
        return self.address < other.address


@forms(exact)
def test_a_worker_that_puts_the_same_value_in_another_trace(form, pool, spans):
    """It is a new job, or one that is tried again there: in no trace of before."""
    jobs = pool(form)
    form.put_under(spans, "producer", jobs.queue, "the job")
    parents = []

    def work():
        form.get(jobs.queue)
        token = attach(Context())
        with spans.start_as_child("other"):
            form.put(jobs.queue, "the job")
        detach(token)

    def idle():
        form.get(jobs.queue)
        parents.append(spans.parent())

    without_context(work)
    without_context(idle)

    assert parents in ([None], ["other"])


@forms(exact)
@pytest.mark.parametrize("make", [Page, lambda _: Slotted()], ids=["told apart", "not"])
def test_a_worker_that_puts_what_cannot_be_referred_to_weakly(make, form, pool, spans):
    """What it has taken is gone then. It is never in the context of that; some are in none."""
    jobs = pool(form)
    form.put_under(spans, "producer", jobs.queue, make("0"))
    parents = []

    def crawl():
        for n in range(6):
            form.get(jobs.queue)
            with spans.start_as_child(f"page {n}") as span:
                parents.append(spans.name(span.parent))
                form.put(jobs.queue, make(f"{n + 1}"))

    without_context(crawl)

    right = ["producer", *(f"page {n}" for n in range(5))]
    missing = set() if make is Page else {None}
    assert not [
        pair for pair in zip(parents, right, strict=True) if pair[0] not in {pair[1], *missing}
    ]


@forms(exact)
def test_a_queue_that_hands_work_on_is_known_after_a_while(form, pool, spans):
    """Then nothing is noted any more, until somebody with a span of its own takes something."""
    jobs = pool(form)
    flow = contextvars.Context()

    def idle():
        form.get(jobs.queue)
        return spans.parent()

    for n in range(40):
        form.put_under(spans, f"producer {n}", jobs.queue, Connection())
        assert flow.run(idle) == f"producer {n}"
    things = pool(form)
    things.queue = jobs.queue
    things.fill()
    assert things.request("request") == "request"
    assert things.check() is None


@forms(exact)
@pytest.mark.parametrize("look", ["empty", "get_nowait"])
def test_a_producer_that_looks_whether_there_is_an_item_is_known_after_a_while(
    form, look, pool, spans
):
    """It is like a pool that makes a thing, until others have taken much and put nothing back."""
    jobs = pool(form)
    worker = contextvars.Context()

    def put():
        with contextlib.suppress(form.empty):
            getattr(jobs.queue, look)()
        jobs.give_back(Connection())

    def handle():
        form.get(jobs.queue)
        return spans.parent()

    seen = []
    for n in range(40):
        jobs.request(f"producer {n}", put)
        seen.append(worker.run(handle))
    assert {parent for n, parent in enumerate(seen) if parent != f"producer {n}"} <= {None}
    assert seen[-1] == "producer 39"


@forms(exact)
def test_a_queue_of_work_for_flows_with_a_span_is_known_after_a_while(form, pool, spans):
    """Then nothing is noted any more, until somebody takes something that nobody has produced."""
    jobs = pool(form)
    busy, idle = contextvars.Context(), contextvars.Context()
    busy.run(attach, trace.set_span_in_context(spans.start("worker")))

    for n in range(80):
        form.put_under(spans, f"producer {n}", jobs.queue, Connection())
        busy.run(form.get, jobs.queue)
        assert busy.run(spans.parent) == "worker"
    form.put_under(spans, "producer", jobs.queue, Connection())
    assert idle.run(lambda: (form.get(jobs.queue), spans.parent())[1]) == "producer"
    things = pool(form)
    things.queue = jobs.queue
    things.fill()
    assert things.request("request") == "request"
    assert things.check() is None


@forms(exact)
def test_work_in_progress_does_not_keep_a_queue_from_being_known(form, pool, spans, monkeypatch):
    """The latest items still exist, as with several workers; the ones before do not."""
    noted = []
    plain = loans.Loan.__init__
    monkeypatch.setattr(
        loans.Loan,
        "__init__",
        lambda self, *args, **kw: (noted.append(1), plain(self, *args, **kw))[1],
    )
    jobs = pool(form)
    busy = contextvars.Context()
    busy.run(attach, trace.set_span_in_context(spans.start("worker")))
    in_progress = collections.deque(maxlen=4)

    def work(count):
        for n in range(count):
            form.put_under(spans, f"producer {n}", jobs.queue, Connection())
            in_progress.append(busy.run(form.get, jobs.queue))
            assert busy.run(spans.parent) == "worker"

    work(260)
    assert len(noted) > 200
    noted.clear()
    work(50)
    assert not noted


@forms(kept)
def test_a_pool_filled_inside_a_span_of_which_all_things_are_taken_at_once(form, pool, spans):
    """However many requests have one of them before the first one comes back."""
    things = pool(form)
    number = 300  # more than are noted of things that cannot be seen to be held
    with spans.current("start"):
        things.fill(number)

    def requests():
        taken = []
        for n in range(number):
            flow = contextvars.Context()
            flow.run(attach, trace.set_span_in_context(spans.start(f"request {n}")))
            taken.append((flow, flow.run(form.get, things.queue)))
        for flow, thing in taken:
            flow.run(things.give_back, thing)

    requests()
    assert [things.check() for _ in range(number)] == [None] * number


def test_a_pool_that_seemed_to_be_work_is_found_out_later(pool, spans, monkeypatch):
    """Permits that were put inside a span, of which more are out than most pools have."""
    monkeypatch.setattr(loans, "_MOST_OF_A_POOL", 64)
    monkeypatch.setattr(loans, "_TO_PASS", 64)
    numbers = itertools.count()
    permits = pool(STOCK[0], lambda: (next(numbers),))
    with spans.current("start"):
        permits.fill(70)

    def requests():
        taken = []
        for n in range(70):
            flow = contextvars.Context()
            flow.run(attach, trace.set_span_in_context(spans.start(f"request {n}")))
            taken.append((flow, flow.run(permits.take)))
        for flow, permit in taken:
            flow.run(permits.give_back, permit)

    for _ in range(4):
        requests()
    assert [permits.check() for _ in range(70)] == [None] * 70
