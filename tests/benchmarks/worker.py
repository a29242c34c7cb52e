"""A process that measures one row: its variants take turns, and are switched on and off between.

Arguments: ``timed`` or ``held``, the operation, whether a span is active, how many rounds, how many
seconds a turn takes, and by which clock. It prints JSON: how the library is implemented, and by
variant the values of all turns, in seconds or bytes for one operation.

Its children import this file as their main module. So it imports nothing before it measures.
"""

import sys


def implementation():
    """Return how the library is implemented in this process."""
    from importlib import import_module, util

    from operations import COMPILED, PURE

    name = "otel_concurrency._core.compiled"
    found = util.find_spec(name) and import_module(name).functions
    return COMPILED if found else PURE


def _switch(variant):
    """Return what switches ``variant`` on, and what switches it off."""
    from operations import OFFICIAL, OURS

    if variant == OURS:
        from otel_concurrency import ConcurrencyInstrumentor

        instrumentor = ConcurrencyInstrumentor()
    elif variant == OFFICIAL:
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        instrumentor = ThreadingInstrumentor()
    else:
        return list, list
    return instrumentor.instrument, instrumentor.uninstrument


def _span(is_active):
    from contextlib import nullcontext

    from opentelemetry import trace
    from operations import TRACER

    return trace.use_span(TRACER.start_span("handler")) if is_active else nullcontext()


def _wall():
    import time

    return time.perf_counter()


def _cpu():
    """Return the CPU time of this process and of its children that have ended."""
    import time

    try:
        import resource
    except ImportError:  # there is none on Windows
        return time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # os.times() counts ticks of 10 ms
    return time.process_time() + children.ru_utime + children.ru_stime


CLOCKS = {"wall": _wall, "cpu": _cpu}


WARM_UP = 5
"""How many turns' worth of work is done before what a turn measures.

Whatever is switched on or off, the interpreter has to specialize the code around it anew (PEP 659).
A program pays for that once.
"""


def _turn(operation, variant, span, loops, clock):
    """Return how many seconds ``loops`` of a variant take."""
    import gc

    on, off = _switch(variant)
    on()
    try:
        with operation.setting(variant) as run, _span(span):
            if loops > 1:
                run(WARM_UP * loops)
            gc.collect()
            start = clock()
            run(loops)
            return clock() - start
    finally:
        off()


def timed(operation, variants, span, rounds, seconds, clock):
    """Return the seconds that each variant takes, one value for each round."""
    from operations import PLAIN

    loops = 1
    while loops < 1_000_000 and _turn(operation, PLAIN, span, loops, clock) < seconds:
        loops *= 2
    values = {variant: [] for variant in variants}
    order = list(variants)
    for number in range(rounds + 1):
        order.append(order.pop(0))
        for variant in order:
            took = _turn(operation, variant, span, loops, clock)
            if number > 0:  # the first round warms up
                values[variant].append(took / loops)
    return values


def held(operation, variants, span, *_):
    """Return the bytes that a waiting hand-off of each variant holds: they do not vary."""
    import gc
    import tracemalloc

    values = {}
    for variant in variants:
        on, off = _switch(variant)
        on()
        with operation.setting(variant) as hand_off, _span(span):
            kept = [hand_off(max(operation.count // 10, 1))]
            gc.collect()
            tracemalloc.start()
            kept.append(hand_off(operation.count))
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        off()
        values[variant] = [size / operation.count]
    return values


def main(how, name, span, rounds, seconds, clock):
    """Measure, and print what was found."""
    import json

    from operations import OPERATIONS, PLAIN_AGAIN

    operation = OPERATIONS[name]
    variants = (*operation.variants, PLAIN_AGAIN)
    values = {"timed": timed, "held": held}[how](
        operation, variants, span == "span", int(rounds), float(seconds), CLOCKS[clock]
    )
    print(json.dumps({"implementation": implementation(), "values": values}))


if __name__ == "__main__":
    main(*sys.argv[1:])
