"""dask.distributed: a local cluster, with workers in threads and in processes."""

from __future__ import annotations

import pytest
from distributed.client import Client
from distributed.worker import Worker
from suite import check_undo, spans_of

CLUSTER = """
if __name__ == "__main__":
    switch_on({settings})
    import dask
    from dask.distributed import Client, LocalCluster
    with tracer.start_as_current_span("maker"):
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes={processes}, dashboard_address=None
        )
        client = Client(cluster)
    names = iter(range(100))

    def submit(function):
        return client.submit(function, next(names)).result()

    def map(function):
        return client.gather(client.map(function, [next(names), next(names)]))[1]

    def compute(function):
        return list(dask.delayed(function, pure=False)(next(names)).compute())

    results = []
    for hand_off in (submit, map, compute):
        assert hand_off(work)[:2] == [0, None]
        for tenant in ("acme", "umbrella"):
            token = context.attach(baggage.set_baggage("tenant", tenant))
            with tracer.start_as_current_span("origin") as span:
                results.append((hand_off(work)[:2], [span.get_span_context().span_id, tenant]))
            context.detach(token)
            assert hand_off(clean) == []
    client.close()
    cluster.close()
    print(all(seen == sent for seen, sent in results), any(seen[0] for seen, _ in results))
"""


@pytest.fixture(autouse=True)
def _without_logs(monkeypatch):
    """Have a worker log no error where its heartbeat meets the end of the cluster."""
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "critical")


@pytest.mark.decisive
@pytest.mark.parametrize("processes", [True, False], ids=["processes", "threads"])
def test_a_task_is_done_in_the_context_that_it_was_submitted_in(processes, tmp_path, monkeypatch):
    """Parent and baggage of each its own, none without; whoever made the cluster; spans arrive."""
    program = CLUSTER.format(settings="", processes=processes)
    printed, spans = spans_of(program, tmp_path, monkeypatch)
    assert printed == "True True\n"
    origins = {me for name, me, *_ in spans if name == "origin"}
    parents = [parent for name, _, parent, *_ in spans if name == "work"]
    assert set(parents) == origins
    assert len(parents) == 8  # a map's two tasks each


@pytest.mark.parametrize("settings", ["adapters='-distributed'", "multiprocessing='off'"])
def test_switched_off_it_carries_nothing_of_its_own(settings, tmp_path, monkeypatch):
    """No task has the context that it was submitted in."""
    program = f"""
if __name__ == "__main__":
    switch_on({settings})
    from dask.distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=1, processes=True, dashboard_address=None)
    client = Client(cluster)
    with tracer.start_as_current_span("origin"):
        print(client.submit(clean).result())
    client.close()
    cluster.close()
"""
    assert spans_of(program, tmp_path, monkeypatch)[0] == "[]\n"


def test_under_link_a_task_is_a_trace_of_its_own(tmp_path, monkeypatch):
    """It has a link to its origin."""
    program = """
if __name__ == "__main__":
    switch_on(multiprocessing="link")
    from dask.distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=1, processes=True, dashboard_address=None)
    client = Client(cluster)
    with tracer.start_as_current_span("origin"):
        client.submit(work).result()
    client.close()
    cluster.close()
"""
    _, spans = spans_of(program, tmp_path, monkeypatch)
    (origin,) = (me for name, me, *_ in spans if name == "origin")
    ((_, _, parent, link, _),) = (span for span in spans if span[0] == "work")
    assert (parent, link) == ("None", origin)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(Client, Worker)
