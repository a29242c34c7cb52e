"""A captured context as an object that a program keeps beside an item, a row or a callback.

``with`` is written for speed. Many threads and tasks may be inside one hand-off at the same time,
and each must find its own token again to detach. The first flow keeps its token in the object. It
claims the object by deleting a slot, which is atomic and succeeds only once. Flows that enter in
the meantime keep their token in a context variable, which costs several times as much. The token in
the object is always the innermost of its flow: a flow that enters again moves it to the variable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from opentelemetry import context as context_api
from opentelemetry.context import Context

from otel_concurrency._by_hand.callables import SUSPENDED, adopted_here, carried, leave, wrapped
from otel_concurrency._core import faults, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, attach, attach_safely, detach, get_current
from otel_concurrency._items import adoption

if TYPE_CHECKING:
    from otel_concurrency._by_hand.carriers import Carrier
    from otel_concurrency._linking.policies import Policy

P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger(__name__)

_Entered = tuple["HandOff", Any, Any]
"""A hand-off that this flow has entered, its token, and the next of these entries.

Of one hand-off, the innermost is the first. A token that was moved here from its hand-off may stand
before those of other hand-offs that were entered later.
"""

_entered: ContextVar[_Entered | None] = ContextVar("otel_concurrency_entered", default=None)


def _claim_nothing(_: Context) -> Any:
    raise AttributeError


_claim = attach if detach is not context_api.detach else _claim_nothing
"""Attaches a context whose token is kept in the object. That takes a context implementation of
which detaching fails in every flow but the one that attached."""


class HandOff:
    """A captured context on its way to the work that belongs to it.

    ``with handoff:`` attaches the context, and detaches it whatever happens inside. It can be used
    any number of times, also nested, and in any threads and tasks. Each ``with`` must be left in
    the flow in which it was entered. If the context was empty when it was captured, it is empty
    inside.

    `capture`, `batch`, `clean` and `HandOff.from_headers` make a hand-off, or ``HandOff(context)``
    from a context. It keeps the context alive as long as it is alive. A copy is the same object. It
    is pickled as its headers.
    """

    __slots__ = ("__weakref__", "_context", "_free", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._token: Any
        self._free = True

    @property
    def context(self) -> Context:
        """The captured context, for calls that take one: ``start_span(context=…)``."""
        return self._context

    def __enter__(self) -> HandOff:
        """Attach the context, and return this object."""
        try:
            del self._free
            self._token = _claim(self._context)
            return self
        except AttributeError:  # another flow is inside
            pass
        except Exception as error:
            handoff.report_fault("attach", error)
        self._enter_beside()
        return self

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        """Detach the context, and all that was attached on top of it. Exceptions pass."""
        try:
            detach(self._token)
        except Exception:  # it is not this flow's
            self._leave_beside()
            return
        self._token = None
        self._free = True
        if handoff.any_adopted and adopted_here() is not None:
            try:
                adoption.end_in(self._context)
            except Exception as error:
                handoff.report_fault("end", error)

    def _enter_beside(self) -> None:
        """Attach the context, and keep the token in this flow."""
        outer = _entered.get()
        here = handoff.current_safely()
        try:
            detach(self._token)
        except Exception:  # noqa: S110 - it is not this flow's, or there is none
            pass
        else:
            self._token = None
            outer = self, attach_safely(self._context), outer
            attach_safely(NO_CONTEXT if here is None else here)
        _entered.set((self, attach_safely(self._context), outer))

    def _leave_beside(self) -> None:
        """Detach what this flow keeps the token of."""
        skipped: list[_Entered] = []
        entered = _entered.get()
        while entered is not None and entered[0] is not self:
            skipped.append(entered)
            entered = entered[2]
        if entered is None:
            _report_left_elsewhere(caller(1))
            return
        outer = entered[2]
        for one, token, _ in reversed(skipped):
            outer = one, token, outer
        _entered.set(outer)
        leave(entered[1], self._context)

    def run(self, f: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``f`` in the context, and return its result.

        If ``f`` is a coroutine function or a generator function, its body runs in the context when
        the result is awaited or iterated over, as with `wrap`.
        """
        context = self._context
        token: Any
        try:
            token = attach(context)
        except Exception as error:
            token = None
            handoff.report_fault("attach", error)
        try:
            result = f(*args, **kwargs)
            if type(result) in SUSPENDED:
                result = carried(f, result, context)
            return result
        finally:
            leave(token, context)
            del self, context, token  # so that a traceback with this frame keeps nothing alive

    def wrap(self, f: Callable[P, R]) -> Callable[P, R]:
        """Return a function like ``f`` of which every call runs in the context.

        For a coroutine function it returns a coroutine function, and for a generator function,
        asynchronous or not, a generator function. A generator's body runs in the context from each
        resumption to the next ``yield``; its consumer keeps the consumer's context. Raises
        TypeError if ``f`` is not callable.
        """
        made: Callable[P, R] = wrapped(f, self._context)
        return made

    def headers(self) -> dict[str, str]:
        """Return the context as text, for a message, a row of a table or a file.

        The names and values are those of the configured propagators (``OTEL_PROPAGATORS``; W3C
        trace context and baggage by default). If the receiver is to link instead of being a child,
        there are up to three more headers, which begin with ``otel-concurrency-``. The result is
        empty if the context has nothing that the propagators carry.
        """
        from otel_concurrency._by_hand import carriers

        return carriers.write(self._context)

    @classmethod
    def from_headers(cls, headers: Carrier) -> HandOff:
        """Return the hand-off in headers that `headers`, or any other propagator, has written.

        It takes a mapping, or pairs of names and values, as the clients of brokers have them. A
        value is text, bytes, a list of either, or an SQS message attribute. A name is text or
        bytes, in upper or lower case. Names that no configured propagator reads are ignored.
        Headers from which no context can be extracted are reported once, and give a hand-off with
        an empty context. The parent is a remote span.
        """
        from otel_concurrency._by_hand import carriers

        return cls(carriers.read(headers))

    def __copy__(self) -> HandOff:
        return self

    def __deepcopy__(self, memo: object) -> HandOff:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return HandOff.from_headers, (self.headers(),)


_new: Any = object.__new__


def capture(policy: Literal["parent", "link"] | Policy = "parent") -> HandOff:
    """Return the current context as a `HandOff`.

    With ``"parent"``, spans that are started in it are children of the current span. With
    ``"link"``, they start a new trace with a link to the current span: for work that is done long
    after. Both keep baggage and every other key of the context. Raises ValueError for any other
    policy.
    """
    if policy != "parent":
        return _captured(policy)
    made: Any = _new(HandOff)  # without the call of `__init__`
    try:
        made._context = get_current()
    except Exception as error:
        made._context = NO_CONTEXT
        handoff.report_fault("get_current", error)
    made._free = True
    captured: HandOff = made
    return captured


def _captured(policy: object) -> HandOff:
    from otel_concurrency._linking import origins, span_start
    from otel_concurrency._linking.policies import Policy

    if policy not in ("link", Policy.LINK, Policy.PARENT):
        raise ValueError(f"the policy of a hand-off is 'parent' or 'link', got {policy!r}")
    context = NO_CONTEXT
    try:
        context = get_current() or context
        if policy is not Policy.PARENT:
            span_start.give_links()
            context = origins.deferred(context, None)
    except Exception as error:
        context = NO_CONTEXT
        handoff.report_fault("capture", error)
    return HandOff(context)


def wrap(
    f: Callable[P, R], policy: Literal["parent", "link"] | Policy = "parent"
) -> Callable[P, R]:
    """Return ``f`` bound to the current context: ``capture(policy).wrap(f)``.

    Call it where the work is handed off. As a decorator it captures where ``f`` is defined.
    """
    return capture(policy).wrap(f)


def batch(handoffs: Iterable[HandOff]) -> HandOff:
    """Return one hand-off for work that serves several hand-offs at once.

    If all have the same origin, it is the parent. Otherwise spans that are started in it start a
    new trace, with a link to each distinct origin in the order of ``handoffs``. It keeps the
    baggage entries that are equal in all. Without any hand-offs its context is empty. Raises
    TypeError if ``handoffs`` contains anything else.
    """
    from otel_concurrency._linking import batches, span_start

    given: list[Any] = list(handoffs)
    for one in given:
        if not isinstance(one, HandOff):
            raise TypeError(f"batch() takes HandOff objects, got {one!r}")
    merged = NO_CONTEXT
    try:
        span_start.give_links()
        merged = batches.merged(one.context for one in given)
    except Exception as error:
        handoff.report_fault("merge", error)
    return HandOff(merged)


def clean() -> HandOff:
    """Return a hand-off with an empty context, whatever context is current.

    It is for what is opened once and outlives the request that happens to open it: a connection, a
    cache, a background thread of a library.
    """
    # A new object: the observer can then tell that the context is empty on purpose.
    return HandOff(Context())


def _report_left_elsewhere(frame: FrameType | None) -> None:
    try:
        site = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        faults.in_one_line(
            _logger,
            ("left elsewhere", site),
            "A hand-off was left at %s in another thread or task than it was entered in: its "
            "context stays attached there, and nothing is detached here. Enter and leave it in one "
            "function call that no other thread or task resumes.",
            site,
        )
    except Exception as error:
        handoff.report_fault("leave", error)
