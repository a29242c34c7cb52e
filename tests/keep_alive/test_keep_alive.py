"""Requests on connections that are kept open begin in no context but that of their own headers."""

from __future__ import annotations

import asyncio
import os

import pytest
from load import load
from processes import installed, serving

REQUESTS = 2_000 if "ALL_ADAPTERS" in os.environ else 10_000
"""How many are thousands: with all the servers that there are, ten would take minutes."""

every_server = pytest.mark.parametrize("server", installed())


def sent_to(server, library, **given):
    """Return what comes of requests to a server in a process of its own."""
    with serving(server, library) as port:
        return asyncio.run(load(port, **given))


@every_server
@pytest.mark.parametrize("library", ["on first", "imported first"])
def test_each_request_is_its_own(server, library):
    """Pipelined, with large bodies, with a span or without: a root, or a child of its headers."""
    found = sent_to(server, library, requests=160, connections=4)
    assert found.answers == 160
    assert not found.wrong, found.examples[:3]


@pytest.mark.scale
@pytest.mark.timeout(600)
@every_server
def test_thousands_of_requests(server):
    """Over fifty connections: none begins in another's context."""
    found = sent_to(server, "on first", requests=REQUESTS, connections=50, seed=1)
    assert found.answers == REQUESTS
    assert not found.wrong, found.examples[:3]


def test_the_load_finds_what_it_looks_for():
    """Without the library requests do begin in others' contexts, and the findings say so."""
    found = sent_to("uvicorn, asyncio, h11", "off", requests=40, connections=2)
    assert found.answers == 40
    assert found.wrong
