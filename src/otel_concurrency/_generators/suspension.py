"""Generators that hold a context over a ``yield``: each is in its own wherever it runs.

While such a generator is suspended, the context that it yielded in lies here. It is attached when
the generator is resumed, by whomever and in whatever thread or task; what was current there is
current again when the generator yields or ends. A generator is known from its first attach to its
last detach, by its frame: that keeps neither the generator alive nor what its variables refer to.

The callbacks run inside the program's generators, at each ``yield``: they are written out. They
raise nothing but what is raised from outside (``KeyboardInterrupt``).
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import CodeType, FrameType
from typing import Any, Final
from weakref import ref

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT
from otel_concurrency._generators import owners
from otel_concurrency._generators.bytecode import ASYNCHRONOUS, is_await
from otel_concurrency._generators.holder import Holder
from otel_concurrency._generators.monitoring import DISABLE, Tool

_getframe = sys._getframe  # pyright: ignore[reportPrivateUsage]  # documented

RESUME_AFTER: Final = 2
"""From a ``yield`` to the RESUME that follows it, in bytes."""

NOWHERE: Final = -1

_NOT_YET: Any = object()
_LOST: Any = object()


class Suspension:
    """A generator that has attached something, and the contexts on both sides of it."""

    __slots__ = ("back", "base", "by_hand", "frame", "held", "kept", "owner", "yields_at")

    def __init__(self, frame: FrameType, base: Context) -> None:
        self.frame: FrameType | None = frame
        """None where to keep it would keep alive what its variables refer to."""
        self.base = base
        """What was current when the generator attached for the first time."""
        self.back: Token[Context] | None = _NOT_YET
        """What leads back to the consumer's context; None while the generator is suspended.

        Until its first ``yield`` no event has shown that; it is taken for what the first attach
        replaced.
        """
        self.kept = base
        """What is current in the generator, as far as it attaches and detaches by itself."""
        self.yields_at = NOWHERE
        """The offset of the ``yield`` that it came by last, where :attr:`kept` holds."""
        self.held: dict[int, tuple[Token[Context], Context]] = {}
        """What the generator has attached, in that order, by the identity of the token.

        The tokens are kept so that no other one gets their identity.
        """
        self.by_hand = False
        """Whether any of it may stay attached when an exception ends the generator."""
        self.owner: ref[Any] | None = None
        """The generator, where :attr:`frame` is None."""

    def has_attached(self, context: Context) -> bool:
        """Whether ``context`` is one that the generator holds."""
        return any(context is held for _, held in self.held.values())

    def consumers_context(self) -> Context:
        """Return what is current for the consumer, while the generator runs."""
        if self.back is None or self.back is _NOT_YET:
            return self.base
        return NO_CONTEXT if self.back is _LOST else _before(self.back)


class Suspensions:
    """The generators that hold a context at present."""

    def __init__(
        self,
        variable: ContextVar[Context],
        outlived: Callable[[Token[Context], Context], None],
    ) -> None:
        """Take the variable that the current context is in.

        When a generator ends, ``outlived`` is called with the token and the context of everything
        that it attached and did not detach: detaching that has no meaning any more.
        """
        self._variable = variable
        self._outlived = outlived
        self.by_frame: dict[FrameType, Suspension] = {}
        self.by_token: dict[int, Suspension] = {}
        self.without_frame: dict[int, Suspension] = {}
        """By the identity of the frame: generators whose frame is not to be kept."""
        self.tool = Tool(self._callbacks())

    def hold(self, holder: Holder, token: Token[Context], context: Context) -> bool:
        """Note what a generator has attached; return whether its suspensions will be heard of."""
        frame = holder.frame
        known = self._find(frame)
        if known is not None and known.back is None:
            self._forget_ended(known)  # it was resumed where no event is sent, in a stranger's flow
            known = None
        if known is None:
            if not self.tool.watch(frame.f_code):
                return False
            known = self.by_frame[frame] = Suspension(frame, _before(token))
        if holder.by_hand:
            known.by_hand = True
            known.yields_at = NOWHERE
        known.kept = context
        known.held[id(token)] = token, context
        self.by_token[id(token)] = known
        return True

    def leave(self, token: Token[Context]) -> bool:
        """Detach what a generator has attached; return False where ``token`` is no such one."""
        known = self.by_token.pop(id(token), None)
        if known is None:
            return False
        _, context = known.held.pop(id(token))
        before = _before(token)
        if known.back is not None:
            variable = self._variable
            try:
                variable.reset(token)
            except ValueError:  # attached in another thread or task
                variable.set(before)
            if before is known.base or not known.held:
                before = known.consumers_context()
                _put_back(variable, before)
            known.kept = before
        elif known.kept is context:  # somebody else detaches, or no event was sent
            known.kept = before
        if known.by_hand:
            known.yields_at = NOWHERE
        if not known.held:
            self.forget(known)
        return True

    def _find(self, frame: FrameType) -> Suspension | None:
        known = self.by_frame.get(frame)
        if known is None and self.without_frame:
            known = self.without_frame.get(id(frame))
            if known is not None and not (known.owner and owners.runs(known.owner, frame)):
                return None
        return known

    def forget(self, known: Suspension) -> None:
        """Let a generator be a plain one."""
        if known.frame is not None:
            self.by_frame.pop(known.frame, None)
        else:
            for frame_id, other in list(self.without_frame.items()):
                if other is known:
                    self.without_frame.pop(frame_id, None)
        for token in list(known.held):
            self.by_token.pop(token, None)
        known.held.clear()
        known.back = known.owner = known.frame = None

    def _forget_ended(self, known: Suspension) -> None:
        for token, context in list(known.held.values()):
            self._outlived(token, context)
        self.forget(known)

    def forget_all(self) -> None:
        """Let all be plain ones."""
        for known in (*self.by_frame.values(), *self.without_frame.values()):
            self.forget(known)

    def _do_without_frame(self, known: Suspension, frame: FrameType) -> None:
        """Keep the frame of a generator no longer, and notice when the generator is gone."""
        owner = owners.owner(frame, lambda: self._forget_ended(known))
        if owner is not None:
            self.by_frame.pop(frame, None)
            known.frame, known.owner = None, owner
            self.without_frame[id(frame)] = known

    def _callbacks(self) -> Mapping[str, Callable[..., Any]]:
        """Return what is called for each event.

        What they use lies in a closure: it is there, too, while the interpreter ends.
        """
        by_frame, without_frame = self.by_frame, self.without_frame
        variable, getframe, report_fault = self._variable, _getframe, handoff.report_fault
        attach, detach = variable.set, variable.reset
        first_yields, resumed, ends = self._first_yields, self._resumed, self._ends

        def on_yield(code: CodeType, offset: int, _value: object) -> object:
            try:
                known = by_frame[getframe(1)]  # quicker than `get`, and nearly always there
            except KeyError:
                known = None
            if known is None or known.yields_at != offset or handoff.any_adopted:
                if code.co_flags & ASYNCHRONOUS and is_await(code, offset + RESUME_AFTER):
                    return DISABLE
                if known is not None or without_frame:
                    first_yields(getframe(1), offset)
                return None
            back: Any = known.back
            known.back = None
            try:
                detach(back)
            except Exception as error:
                _detach_otherwise(variable, back, error)
            return None

        def on_resume(code: CodeType, offset: int) -> object:
            try:
                known = by_frame[getframe(1)]
            except KeyError:
                known = None
            if known is None or known.back is not None:
                if code.co_flags & ASYNCHRONOUS and is_await(code, offset):
                    return DISABLE
                if without_frame:
                    resumed(getframe(1))
                return None
            try:
                known.back = attach(known.kept)
            except Exception as error:
                report_fault("resume a generator", error)
            except BaseException:
                known.back = _LOST
                raise
            return None

        def on_throw(_code: CodeType, _offset: int, _error: object) -> None:
            if by_frame or without_frame:
                resumed(getframe(1))

        def on_end(_code: CodeType, _offset: int, _value: object) -> None:
            if by_frame or without_frame:
                ends(getframe(1))

        return {
            "PY_YIELD": on_yield,
            "PY_RESUME": on_resume,
            "PY_THROW": on_throw,
            "PY_RETURN": on_end,
            "PY_UNWIND": on_end,
        }

    def _first_yields(self, frame: FrameType, offset: int) -> None:
        """Suspend a generator that comes by a ``yield`` of which not all is known."""
        try:
            known = self._find(frame)
            if known is None:
                return
            variable, back = self._variable, known.back
            current = variable.get()
            if back is None:  # it was resumed where no event is sent
                return
            if back is _NOT_YET and current is known.base and not known.has_attached(current):
                self.forget(known)  # it holds nothing: what it attached was left by another way
                return
            if known.by_hand:
                # It may never detach. See to it that its end is noticed.
                self.tool.watch_unwinding()
                if known.frame and owners.ends_unheard(frame.f_code, offset + RESUME_AFTER):
                    self._do_without_frame(known, frame)
            known.yields_at = offset
            known.kept = current
            before = known.consumers_context()
            known.back = None
            _put_back(variable, before)
        except Exception as error:
            handoff.report_fault("suspend a generator", error)

    def _resumed(self, frame: FrameType) -> None:
        """Resume a generator, if it is known: by an exception, or one whose frame is not kept.

        It may be an asynchronous one that waits: then its own task goes on with it, and is in what
        the generator has attached, or somebody closes what its task has left.
        """
        try:
            variable, known = self._variable, self._find(frame)
            if known is None:
                return
            if known.back is None:
                known.back = variable.set(known.kept)
            elif known.held and not known.has_attached(variable.get()):
                *_, (_, known.kept) = known.held.values()
                known.back = variable.set(known.kept)
        except Exception as error:
            handoff.report_fault("resume a generator", error)

    def _ends(self, frame: FrameType) -> None:
        """Let a generator that ends, if it is known, leave its consumer where it was."""
        try:
            known = self._find(frame)
            if known is None:
                return
            variable, back = self._variable, known.back
            if back is not None and (back is not _NOT_YET or known.has_attached(variable.get())):
                _put_back(variable, known.consumers_context())
            self._forget_ended(known)
        except Exception as error:
            handoff.report_fault("end a generator", error)


def _detach_otherwise(variable: ContextVar[Context], back: Any, error: Exception) -> None:
    """Do what a token could not: the consumer is in another flow, or not known."""
    if back is None:
        return
    if isinstance(error, ValueError) or back is _LOST:
        variable.set(NO_CONTEXT if back is _LOST else _before(back))
    else:
        handoff.report_fault("suspend a generator", error)


def _put_back(variable: ContextVar[Context], context: Context) -> None:
    if variable.get() is not context:
        variable.set(context)


def _before(token: Token[Context]) -> Context:
    """Return what was current before ``token`` was got."""
    before: Any = token.old_value
    return _default(token.var) if before is Token.MISSING else before


@functools.cache
def _default(variable: ContextVar[Context]) -> Context:
    """Return the context that is current where nothing was ever attached."""
    return contextvars.Context().run(variable.get)
