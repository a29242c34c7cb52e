"""A captured context as an object: what a program keeps beside an item, a row or a callback.

``with`` is written for speed. The token that detaches must be kept where its own flow finds it
again, however many threads and tasks are inside one hand-off. The first keeps it in the object,
which it claims by deleting a slot: that is one step, and succeeds once. Whoever enters meanwhile
keeps it in a context variable, which costs twice as much.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from opentelemetry import context as context_api
from opentelemetry.context import Context

from otel_concurrency._by_hand import callables
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
"""A hand-off that this flow is inside, its token, and what the flow has entered before."""

_entered: ContextVar[_Entered | None] = ContextVar("otel_concurrency_entered", default=None)
_innermost = _entered.get

_CAN_CLAIM = detach is not context_api.detach
"""Whether to detach fails in any other flow than the one that has attached."""


class HandOff:
    """A captured context on its way to the work that belongs to it.

    ``with handoff:`` attaches it, and detaches it whatever happens inside: any number of times,
    also nested, in any threads and tasks. It is left in the flow in which it was entered. If
    nothing was current when it was captured, nothing is current inside.

    It is made by `capture`, `batch`, `clean` and `HandOff.from_headers`, or of a context:
    ``HandOff(context)``. It keeps the context alive as long as it is alive. A copy is the same
    hand-off; what is pickled is its headers.
    """

    __slots__ = ("__weakref__", "_context", "_free", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._token: Any
        if _CAN_CLAIM:
            self._free = True

    @property
    def context(self) -> Context:
        """The context that is attached, for what takes one: ``start_span(context=…)``."""
        return self._context

    def __enter__(self) -> HandOff:
        try:
            if _innermost() is None:
                del self._free
                self._token = attach(self._context)
                return self
        except AttributeError:  # another flow is inside
            pass
        except Exception as error:
            handoff.report("attach", error)
        _entered.set((self, attach_safely(self._context), _innermost()))
        return self

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        innermost = _innermost()
        if innermost is not None and innermost[0] is self:
            _entered.set(innermost[2])
            handoff.leave(innermost[1])
        else:
            try:
                detach(self._token)
            except Exception:
                _report_left_elsewhere()
                return
            self._token = None
            self._free = True
        if handoff.any_adopted:
            adoption.end_in(self._context)

    def run(self, f: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``f`` in the context, and return what it returns.

        The body of a coroutine function, or of a generator function, runs in the context when what
        is returned is awaited or iterated, as `wrap` has it.
        """
        context = self._context
        token = attach_safely(context)
        try:
            result = f(*args, **kwargs)
            if type(result) in callables.SUSPENDED:
                result = callables.carried(f, result, context)
            returned: R = result
            return returned
        finally:
            callables.leave(token, context)
            del self, context, token  # a traceback that leads through here keeps nothing alive

    def wrap(self, f: Callable[P, R]) -> Callable[P, R]:
        """Return ``f`` as it is, but that every call of it runs in the context.

        A coroutine function stays one, and so does a generator function, asynchronous or not: its
        body runs in the context from each resumption to the next ``yield``, and its consumer stays
        in its own. Raises TypeError if ``f`` is not callable.
        """
        wrapped: Callable[P, R] = callables.wrapped(f, self._context)
        return wrapped

    def headers(self) -> dict[str, str]:
        """Return the context as text, for a message, a row of a table or a file.

        The names and values are those of the configured propagators (``OTEL_PROPAGATORS``; W3C
        trace context and baggage by default), and up to three beginning with ``otel-concurrency-``
        where the far side is to be linked. It is empty if the context has nothing that they carry.
        """
        from otel_concurrency._by_hand import carriers

        return carriers.write(self._context)

    @classmethod
    def from_headers(cls, headers: Carrier) -> HandOff:
        """Return the hand-off that `headers` has written, or that any other propagator has.

        It takes a mapping, or pairs of names and values, as clients have them: values are text,
        bytes, a list of either, or what SQS wraps them in; names are text or bytes in any case;
        other names are ignored. What makes no context is reported once, and is a hand-off without
        one. The parent is a remote span.
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
    """Return the current context as a `HandOff`, here and now.

    Under ``"parent"`` spans that are started in it are children of the span that is current here.
    Under ``"link"`` they start a trace of their own, with a link to that span: for work that is
    done long after. Baggage, and every other key, is there under both. Raises ValueError for any
    other policy.
    """
    if policy != "parent":
        return _captured(policy)
    made: Any = _new(HandOff)  # without the call of `__init__`
    try:
        made._context = get_current()
    except Exception as error:
        made._context = NO_CONTEXT
        handoff.report("get_current", error)
    if _CAN_CLAIM:
        made._free = True
    captured: HandOff = made
    return captured


def _captured(policy: object) -> HandOff:
    from otel_concurrency._linking import origins, span_start
    from otel_concurrency._linking.policies import Policy

    context = handoff.current_safely() or NO_CONTEXT
    if policy in ("link", Policy.LINK):
        span_start.give_links()
        context = origins.deferred(context, None)
    elif policy is not Policy.PARENT:
        raise ValueError(f"the policy of a hand-off is 'parent' or 'link', got {policy!r}")
    return HandOff(context)


def wrap(
    f: Callable[P, R], policy: Literal["parent", "link"] | Policy = "parent"
) -> Callable[P, R]:
    """Return ``f`` bound to the context that is current here: ``capture(policy).wrap(f)``.

    Call it where the work is handed off. As a decorator it captures where ``f`` is defined.
    """
    return capture(policy).wrap(f)


def batch(handoffs: Iterable[HandOff]) -> HandOff:
    """Return one hand-off for work that is done for several at once.

    If all have the same origin, that is the parent. Otherwise spans that are started in it start a
    trace of their own, with a link to each distinct origin in the order of ``handoffs``. Of the
    baggage it has what all agree on. Of no hand-offs it lets nothing be current. Raises TypeError
    if there is anything but hand-offs in ``handoffs``.
    """
    from otel_concurrency._linking import batches, span_start

    given: list[Any] = list(handoffs)
    for one in given:
        if not isinstance(one, HandOff):
            raise TypeError(f"batch() takes HandOff objects, got {one!r}")
    merged = batches.merged(one.context for one in given)
    span_start.give_links()
    return HandOff(merged)


def clean() -> HandOff:
    """Return a hand-off in which nothing is current, whatever is current around it.

    For what is opened once and outlives the request that happens to open it: a connection, a cache,
    a thread of a library's own.
    """
    return HandOff(Context())  # a new one: whoever looks can tell that nothing was lost


def _report_left_elsewhere() -> None:
    frame = caller(1)
    site = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
    faults.in_one_line(
        _logger,
        ("left elsewhere", site),
        "A hand-off was left at %s in another thread or task than it was entered in: its context "
        "stays attached there, and nothing is detached here. Enter and leave it in one function "
        "call that no other thread or task resumes.",
        site,
    )
