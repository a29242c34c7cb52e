"""Graphs of dask, each computed by the threads of its scheduler below a span of its own."""

from __future__ import annotations

import dask
import dask.bag
from spans import span


def square(number, parent):
    """Return the square of ``number``."""
    with span(f"{parent}/{number}", parent):
        return number * number


def total(numbers, parent):
    """Return the sum of ``numbers``."""
    with span(f"{parent}/total", parent):
        return sum(numbers)


for graph in ("first", "second"):
    with span(graph):
        squares = [dask.delayed(square)(number, graph) for number in range(8)]
        print(dask.delayed(total)(squares, graph).compute(scheduler="threads", num_workers=3))
with span("bag"):
    bag = dask.bag.from_sequence(range(8), npartitions=4)
    print(bag.map(square, "bag").compute(scheduler="threads", num_workers=3))
