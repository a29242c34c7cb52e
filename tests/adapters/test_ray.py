"""ray: what is sent and taken away, without a cluster; `test_ray_cluster.py` has one."""

from __future__ import annotations

import pytest
import ray._common.signature
import ray._private.worker
from ray.actor import ActorClass, ActorMethod
from ray.remote_function import RemoteFunction
from suite import IN_BOTH_ORDERS, check_undo, run_program


@pytest.mark.decisive
@IN_BOTH_ORDERS
def test_imported_before_or_after(first, monkeypatch):
    """A task gets its context and its own arguments; one that was sent without context has none."""
    program = """
import os, pickle
from types import SimpleNamespace
from opentelemetry import baggage, context
import ray._private.worker as workers

sent = []
plain = workers.global_worker
workers.global_worker = SimpleNamespace(
    check_connected=int, mode=workers.WORKER_MODE, current_cluster_and_job=(1, 1),
    function_actor_manager=SimpleNamespace(export=id), debugger_breakpoint=b"",
    should_capture_child_tasks_in_placement_group=False,
    core_worker=SimpleNamespace(
        submit_task=lambda *args: sent.append(args[2]) or [1],
        current_actor_is_asyncio=bool,
    ),
)
task = ray.remote(scheduling_strategy="DEFAULT")(lambda *args, **kwargs: None)
token = context.attach(baggage.set_baggage("tenant", "acme"))
task.remote()
task.remote(1, two=2)
context.detach(token)
task.remote(1)
for flat in map(ray.cloudpickle.dumps, sent):
    with workers._changeproctitle("begins", "ends"):
        print(ray._common.signature.recover_args(pickle.loads(flat)), baggage.get_baggage("tenant"))
    assert not context.get_current()
workers.global_worker = plain
"""
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    printed = run_program(first.format(module="ray") + program)
    assert printed.splitlines() == ["([], {}) acme", "([1], {'two': 2}) acme", "([1], {}) None"]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    owners = (RemoteFunction, ActorClass, ActorMethod)
    check_undo(*owners, ray._common.signature, ray._private.worker)
