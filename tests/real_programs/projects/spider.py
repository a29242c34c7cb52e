"""A spider: each answer is a span, and is taken apart in a thread of Twisted's pool."""

from __future__ import annotations

import asyncio

import scrapy
from scrapy.utils.defer import maybe_deferred_to_future
from spans import span
from twisted.internet.threads import deferToThread


def take_apart(part, path, text):
    """Return the words of the answer to ``path``."""
    with span(f"{path}/{part}", path):
        return text.split()


class Words(scrapy.Spider):
    name = "words"

    async def start(self):
        """Ask for each of the pages."""
        for number in range(6):
            yield scrapy.Request(f"{self.url}/{number}")

    async def parse(self, response):
        """Give the words of the answer."""
        path = response.url.removeprefix(self.url)
        with span(path):
            pooled = deferToThread(take_apart, "twisted", path, response.text)
            words = await maybe_deferred_to_future(pooled)
            again = await asyncio.to_thread(take_apart, "asyncio", path, response.text)
        yield {"path": path, "words": words, "again": again}
