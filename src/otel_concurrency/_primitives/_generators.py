"""Generators: what they attach stays with them over a ``yield``.

The seam is OpenTelemetry's runtime context, ``ContextVarsRuntimeContext``, through which programs
and instrumentations attach. What this library attaches does not come by there, nor is it left over
a ``yield``. A generator is found when it attaches something, and only such a one is listened to
from then on (``_generators``).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from types import CodeType, FrameType, ModuleType
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam, capture_nothing
from otel_concurrency._core.patching import Layer, Patch, apply_all, undo_all
from otel_concurrency._generators import bytecode, holder, monitoring
from otel_concurrency._generators.suspension import Suspensions
from otel_concurrency._generators.without_events import Attachments

_getframe = sys._getframe  # pyright: ignore[reportPrivateUsage]  # documented
_VARIABLE: Any = ContextVar


def _patches(module: ModuleType, seam: Seam) -> list[Patch]:
    runtime: Any = module.ContextVarsRuntimeContext
    return [Generators(runtime, _variable(runtime), seam)]


MODULES = {"opentelemetry.context.contextvars_context": _patches}


def _variable(runtime: type) -> ContextVar[Context]:
    """Return the variable behind OpenTelemetry's runtime context (a name since API 1.0)."""
    context_api.get_current()  # the runtime context is loaded by the first use before API 1.21
    present: Any = getattr(context_api, "_RUNTIME_CONTEXT", None)
    variable: Any = getattr(present, "_current_context", None)
    if not isinstance(present, runtime) or not isinstance(variable, _VARIABLE):
        raise TypeError(f"the runtime context {type(present).__qualname__} is not known")
    found: ContextVar[Context] = variable
    return found


class Generators:
    """The hooks, and the generators that hold a context, however much can be done for them."""

    def __init__(self, runtime: type, variable: ContextVar[Context], seam: Seam) -> None:
        """Take the class of the runtime context, and the variable that it keeps the context in."""
        self._seam = seam
        self.unheard = Attachments(variable)
        self.suspensions = Suspensions(variable, self.unheard.hold) if monitoring.IS_THERE else None
        self.layers = [
            Layer(runtime, "attach", lambda raw: _attach(raw, self)),
            Layer(runtime, "detach", lambda raw: _detach(raw, self)),
        ]

    def apply(self) -> None:
        """Set the hooks. A tool id is taken when a generator is found."""
        apply_all(self.layers)

    def undo(self) -> None:
        """Take the hooks away, and let all generators be plain ones, also suspended ones."""
        undo_all(self.layers)
        self.unheard.by_token.clear()
        if self.suspensions is not None:
            self.suspensions.tool.stop()
            self.suspensions.forget_all()

    def limits(self) -> Iterator[str]:
        """Yield what cannot be done for generators in this process, for who asks how things are."""
        if self.suspensions is None:
            yield f"this Python has no sys.monitoring (CPython 3.12 and later has): {_UNHEARD}"
        elif self.suspensions.tool.refused:
            yield f"all tool ids of sys.monitoring are taken by others: {_UNHEARD}"

    def look_from(self, api: FrameType | None, token: Token[Context], context: Context) -> None:
        """Look for a generator that has attached ``context``. Never raises.

        ``api`` is the frame that has called the runtime context: nearly always that of the API.
        """
        seam = self._seam
        if api is None or seam.capture is capture_nothing or seam.starts_clean is None:
            return
        try:
            frame = api.f_back if api.f_code is _API_ATTACH else api
            if frame is None or holder.is_balanced(frame.f_code):
                return
            one = holder.find(frame, seam.starts_clean)
            if one is None:
                return
            if self.suspensions is None or not self.suspensions.hold(one, token, context):
                self.unheard.hold(token, context)
        except Exception as error:
            handoff.report_fault("attach", error)


_UNHEARD = (
    "what a generator has attached stays current in its consumer when it yields. Nothing is logged "
    "where it is closed in another thread or task, and no consumer is put back into a context that "
    "is over"
)

_API_ATTACH = context_api.attach.__code__

_GENERATOR, _ENTERING, _ENTERING_AT = bytecode.GENERATOR, bytecode.ENTERING, bytecode.ENTERING_AT

# How far from `attach` a frame is where a tracer's `start_as_current_span` has called it: the API's
# `attach`, `use_span`, what resumes that, the tracer's method, what resumes that, and its caller.
# The method and `use_span` are generators.
_USE_SPAN_AT, _TRACER_AT, _CALLER_AT = 2, 4, 6

_METHOD = "start_as_current_span"


def _code_of_proxy() -> CodeType | None:
    """Return the code of the tracer that calls another one, in a generator, too."""
    method: Any = getattr(trace.ProxyTracer, _METHOD)
    return getattr(getattr(method, "__wrapped__", method), "__code__", None)


_PROXY = _code_of_proxy()

_USE_SPAN = getattr(trace.use_span, "__wrapped__", trace.use_span).__code__

_SDK = "opentelemetry.sdk.trace"
"""The module of the tracer whose ``start_as_current_span`` holds nothing itself.

A span that calls a span processor at its end is of the same module, so that of ``use_span`` is
asked for, too.
"""

_API = trace.__name__


def _module_by_frame(depth: int) -> Any:
    return _getframe(depth + 1).f_globals.get("__name__")


_module_at: Callable[[int], Any] = getattr(sys, "_getframemodulename", _module_by_frame)
"""Returns the name of a caller's module. From CPython 3.12 on no frame object is made for that."""


class _Marks(bytearray):
    """The offsets of a code object that are marked."""

    __slots__ = ("code",)

    def __init__(self, code: CodeType) -> None:
        super().__init__(len(code.co_code))
        self.code = code  # no other code gets its identity


class _Blocks(dict[int, _Marks]):
    """The ``with`` statements that were seen to begin with a tracer's ``start_as_current_span``.

    For a code object, by its identity, the offsets of these are marked. What such a statement has
    attached, it detaches before its function returns, and no generator needs to be looked for.

    A function that is passed the block may be passed one that reads a generator the next time. So
    only functions count that name the tracer's method themselves.
    """

    def add(self, code: CodeType, offset: int) -> None:
        if _METHOD not in code.co_names:
            return
        marks = self.get(id(code))
        if marks is None:
            if len(self) >= _MOST_CODES:
                self.clear()
            marks = self[id(code)] = _Marks(code)
        marks[offset] = True


_MOST_CODES = 1024


def _attach(original: Any, generators: Generators) -> Any:
    unheard, look_from = generators.unheard.by_token, generators.look_from
    getframe, module_at = _getframe, _module_at
    blocks = _Blocks()
    balanced: CodeType | None = None

    @functools.wraps(original)
    def attach(self: Any, context: Any) -> Any:
        token = self._current_context.set(context)
        try:
            if unheard:
                unheard.pop(id(token), None)
            frame = getframe(_CALLER_AT)
            code = frame.f_code
            if code is _PROXY:
                frame = getframe(_CALLER_AT + 2)
                code = frame.f_code
            known = blocks.get(id(code))
            if known is None or not known[frame.f_lasti]:
                if module_at(_TRACER_AT) == _SDK and module_at(_USE_SPAN_AT) == _API:
                    look_at(frame, getframe(1), token, context)
                else:
                    look_beyond(getframe(1), token, context)
        except ValueError:  # there are not so many callers
            look_beyond(_caller(), token, context)
        except Exception as error:
            handoff.report_fault("attach", error)
        return token

    def look_at(frame: FrameType, api: FrameType, token: Any, context: Any) -> None:
        """Look for a generator where ``frame`` has called the tracer."""
        code = frame.f_code
        if code.co_flags & _GENERATOR:
            look_from(frame, token, context)
        elif code.co_code[frame.f_lasti + _ENTERING_AT] == _ENTERING:
            blocks.add(code, frame.f_lasti)
        else:
            look_from(api, token, context)

    def look_beyond(api: FrameType | None, token: Any, context: Any) -> None:
        """Look for a generator where anything but the SDK's tracer has attached."""
        nonlocal balanced
        frame = None if api is None or api.f_code is not _API_ATTACH else api.f_back
        if frame is not None and frame.f_code is _USE_SPAN and frame.f_back is not None:
            frame = frame.f_back.f_back
            if frame is None:
                pass
            elif frame.f_code.co_flags & _GENERATOR:
                api = frame
            elif frame.f_code.co_code[frame.f_lasti + _ENTERING_AT] == _ENTERING:
                return
        elif frame is not None:
            if frame.f_code is balanced:
                return
            if holder.is_balanced(frame.f_code):
                balanced = frame.f_code
                return
        look_from(api, token, context)

    @functools.wraps(original)
    def attach_by_original(self: Any, context: Any) -> Any:
        token = original(self, context)
        unheard.pop(id(token), None)
        look_from(_caller(), token, context)
        return token

    return attach if _does_only(original, "set") else attach_by_original


def _caller() -> FrameType | None:
    try:
        return _getframe(2)
    except ValueError:  # a thread begins with it
        return None


def _detach(original: Any, generators: Generators) -> Any:
    unheard, suspensions = generators.unheard, generators.suspensions
    unheard_by_token = unheard.by_token
    by_token = {} if suspensions is None else suspensions.by_token
    leave: Any = None if suspensions is None else suspensions.leave

    @functools.wraps(original)
    def detach(self: Any, token: Any) -> Any:
        if by_token and id(token) in by_token and leave(token):
            return None
        if unheard_by_token and id(token) in unheard_by_token and unheard.leave(token):
            return None
        return self._current_context.reset(token)

    @functools.wraps(original)
    def detach_by_original(self: Any, token: Any) -> Any:
        if leave is not None and leave(token):
            return None
        return None if unheard.leave(token) else original(self, token)

    return detach if _does_only(original, "reset") else detach_by_original


def _does_only(function: Any, operation: str) -> bool:
    """Whether a method does nothing but ``operation`` to the variable of its runtime context."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_names == ("_current_context", operation)
