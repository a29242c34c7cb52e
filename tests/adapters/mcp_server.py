"""A server of MCP 1 or 2 whose tools say in which context they run. As a program it uses stdio."""

from __future__ import annotations

from opentelemetry import baggage, trace

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

from mcp import types


def here():
    """Return which trace this is, and the baggage."""
    found = trace.get_current_span().get_span_context().trace_id
    return f"{found:x} {baggage.get_baggage('tenant')}"


def made():
    """Return a new server."""
    server = MCPServer("tests")

    @server.tool()
    async def coroutine(context: Context) -> str:  # type: ignore[type-arg]
        await context.report_progress(1, 2)
        return here()

    @server.tool()
    def function() -> str:
        return here()

    @server.tool()
    async def asks(context: Context) -> str:  # type: ignore[type-arg]
        question = types.SamplingMessage(
            role="user", content=types.TextContent(type="text", text="?")
        )
        answer = await context.session.create_message(messages=[question], max_tokens=1)
        return str(answer.content.text)

    return server


if __name__ == "__main__":
    made().run()
