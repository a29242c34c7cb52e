"""What can be done for generators where no event tells of a suspension, or they have ended.

That is on CPython before 3.12, on PyPy, and where all tool ids of ``sys.monitoring`` are taken.
What a generator attaches there stays current in its consumer. But a token is reset only where what
it has attached is still current: nothing fails in another thread or task, and no flow is put back
into a context that is over.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from weakref import ref

from opentelemetry.context import Context

from otel_concurrency._core.handoff import NO_CONTEXT

_MOST = 10_000


class Attachments:
    """What generators have attached and not detached."""

    def __init__(self, variable: ContextVar[Context]) -> None:
        """Take the variable that the current context is in."""
        self._variable = variable
        self.by_token: dict[int, ref[Context]] = {}
        """By the identity of a token: the context that was attached, as long as it lives.

        The token may be gone; whoever attaches anew under its identity drops the entry.
        """

    def hold(self, token: Token[Context], context: Context) -> None:
        """Note what a generator has attached."""
        if len(self.by_token) >= _MOST:  # of generators that never detach
            self.by_token.clear()
        self.by_token[id(token)] = ref(context)

    def leave(self, token: Token[Context]) -> bool:
        """Detach what a generator has attached; return False where ``token`` is no such one."""
        attached = self.by_token.pop(id(token), None)
        if attached is None:
            return False
        variable = self._variable
        if variable.get() is attached():
            try:
                variable.reset(token)
            except ValueError:  # a copy of the flow that it was attached in
                before = token.old_value
                variable.set(NO_CONTEXT if before is Token.MISSING else before)
        return True
