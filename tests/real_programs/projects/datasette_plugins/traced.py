"""A plugin of datasette: a span for each request, and for each call of an SQL function."""

from __future__ import annotations

from urllib.parse import parse_qs

from datasette import hookimpl
from spans import span


@hookimpl
def asgi_wrapper():
    """Make a span for each request that has a name."""

    def wrapped(app):
        async def traced(scope, receive, send):
            name = parse_qs(scope.get("query_string", b"").decode()).get("request")
            if name is None:
                return await app(scope, receive, send)
            with span(name[0]):
                return await app(scope, receive, send)

        return traced

    return wrapped


def call(number, parent):
    """Return ``number``, from a span that is below the request ``parent``."""
    with span(f"{parent}/{number}", parent):
        return number


@hookimpl
def prepare_connection(conn):
    """Add the SQL function ``traced``, which datasette calls in a thread of its own pool."""
    conn.create_function("traced", 2, call)
