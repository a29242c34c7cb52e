"""The small programs of `apps`, which tests run as processes of their own."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
APPS = Path(__file__).parent / "apps"

BROKEN = {
    "raw_thread": ("raw_thread", {"library": False}),
    "primitive_off": ("primitive_off", {"OTEL_PYTHON_CONCURRENCY_QUEUE": "off"}),
    "captured_late": ("captured_late", {"library": False}),
    "never_detached": ("left_attached", {}),
    "condition": ("woken", {}),
    "event": ("woken", {}),
    "consumer_span": ("consumer_span", {}),
    "not_exported": ("not_exported", {}),
    "context_without_span": ("explicit_context", {}),
    "thread_of_a_library": ("starts_clean", {}),
    "started_server": ("left_with_server", {"library": False}),
    "worker_task": ("left_with_worker", {"library": False}),
    "worker_thread": ("left_with_worker", {"OTEL_PYTHON_CONCURRENCY_QUEUE": "off"}),
    "scheduled_action": ("left_with_worker", {"OTEL_PYTHON_CONCURRENCY_SCHED": "off"}),
    "streaming_generator": ("left_by_generator", {"library": False}),
    "streaming_async_generator": ("left_by_generator", {"library": False}),
    "pipelined_requests": ("left_with_task", {"library": False}),
}
"""Programs that lose their context: what is said of each, and how it is run to be broken."""

if sys.version_info < (3, 15):  # from then on asyncio reads on in the connection's context
    BROKEN["resumed_connection"] = ("left_with_connection", {"library": False})
if sys.platform == "linux":
    BROKEN["thread_of_c"] = ("unknown_thread", {})
    BROKEN["wrapped_early"] = ("captured_early", {})


def plugins_of_pytest(*names):
    """Return the options by which pytest loads ours and these of the plugins that are installed.

    The others import much into every process, and some warn where they are not set up.
    """
    installed = {plugin.name for plugin in entry_points(group="pytest11")} | {"cacheprovider"}
    return [f"-pno:{name}" for name in sorted(installed - {"otel_concurrency", *names})]
