"""Submits tasks to a pool of processes, each of them in a span of its own.

Not a line of it knows otel-concurrency. Arguments: the kind of pool, the start method, how many
tasks, how many spans each of them makes, and after how many tasks a worker is replaced (0: never).
"""

import concurrent.futures
import multiprocessing
import sys

import everywhere  # noqa: F401 - it is under a command that may let go of its children
from opentelemetry import trace

tracer = trace.get_tracer("pools")


def work(task, spans):
    """Make spans in the child."""
    for number in range(spans):
        with tracer.start_as_current_span(f"work {task} {number}"):
            pass


def submit(function, *arguments):
    """Call what hands the task off in a span."""
    task, _ = arguments[-2:]
    with tracer.start_as_current_span(f"submit {task}"):
        return function(*arguments)


def apply_to(pool):
    """Return what hands the work to a `Pool`."""
    return lambda *arguments: pool.apply_async(work, arguments)


def executor(context, recycled, submissions):
    """Use a `ProcessPoolExecutor`."""
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for future in [submit(pool.submit, work, *arguments) for arguments in submissions]:
            future.result()


def recycling_executor(context, recycled, submissions):
    """Use a `ProcessPoolExecutor` that replaces its worker.

    One task at a time: CPython's own dead-locks where a burst waits for a replacement (gh-115634).
    """
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, max_tasks_per_child=recycled
    ) as pool:
        for arguments in submissions:
            submit(pool.submit, work, *arguments).result()


def pool(context, recycled, submissions):
    """Use a `Pool` that is closed and joined."""
    pool = context.Pool(2, maxtasksperchild=recycled or None)
    for result in [submit(apply_to(pool), *arguments) for arguments in submissions]:
        result.get()
    pool.close()
    pool.join()


def terminated_pool(context, recycled, submissions):
    """Use a `Pool` that is left, and so terminated, when it has nothing to do any more."""
    with context.Pool(2, maxtasksperchild=recycled or None) as pool:
        for result in [submit(apply_to(pool), *arguments) for arguments in submissions]:
            result.get()


def process(context, recycled, submissions):
    """Use a `Process` for each task, some of them at a time."""
    started = []
    for arguments in submissions:
        started.append(context.Process(target=work, args=arguments))
        submit(lambda *_, process=started[-1]: process.start(), *arguments)
        if len(started) == 4:
            started.pop(0).join()
    for each in started:
        each.join()


KINDS = (executor, recycling_executor, pool, terminated_pool, process)

if __name__ == "__main__":
    kind, method, tasks, spans, recycled = sys.argv[1:]
    run = {run.__name__: run for run in KINDS}[kind]
    context = multiprocessing.get_context(method)
    run(context, int(recycled), [(task, int(spans)) for task in range(int(tasks))])
