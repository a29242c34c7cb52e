"""The private names of asyncio that the library relies on; see :mod:`private_names`."""

from __future__ import annotations

from collections.abc import Mapping

from otel_concurrency._core.private_name import PrivateName

ASYNCIO: Mapping[str, PrivateName] = {
    "asyncio.base_events.BaseEventLoop._default_executor": PrivateName(
        "_primitives._asyncio", "whether `run_in_executor(None, ...)` uses a pool that is patched"
    ),
    "asyncio.coroutines._is_coroutine": PrivateName(
        "_primitives._asyncio", "marking a replacement as a coroutine function", until=(3, 12)
    ),
    "asyncio.events._get_running_loop": PrivateName(
        "_clean_starts.wrappers _linking.batches _observer.flows _observer.generator_spans "
        "_observer.span_hooks",
        "whether the thread runs an event loop",
    ),
    "asyncio.events.Handle._args": PrivateName(
        "_primitives._asyncio_callbacks", "comparing the rounds of a repeating timer"
    ),
    "asyncio.events.Handle._callback": PrivateName(
        "_primitives._asyncio_callbacks", "comparing the rounds of a repeating timer"
    ),
    "asyncio.events.Handle._context": PrivateName(
        "_primitives._asyncio_callbacks", "the context in which a reader is called"
    ),
    "asyncio.events.Handle._run": PrivateName(
        "_linking.flows _linking.root_places _core.frames _primitives._asyncio_callbacks",
        "where a callback begins; a layer of `TimerHandle`",
    ),
    "asyncio.events.Handle._source_traceback": PrivateName(
        "_primitives._asyncio_callbacks", "the body of `TimerHandle.__init__`"
    ),
    "asyncio.events.TimerHandle._scheduled": PrivateName(
        "_primitives._asyncio_callbacks", "the body of `TimerHandle.__init__`"
    ),
    "asyncio.events.TimerHandle._when": PrivateName(
        "_primitives._asyncio_callbacks", "the body of `TimerHandle.__init__`"
    ),
    "asyncio.futures._set_result_unless_cancelled": PrivateName(
        "_primitives._asyncio_callbacks", "leaving the timer of `asyncio.sleep` alone"
    ),
    "asyncio.queues.Queue._get": PrivateName(
        "_items.pairing _items.queue_hooks _primitives._asyncio", "a hook: an item is taken out"
    ),
    "asyncio.queues.Queue._put": PrivateName(
        "_items.pairing _items.queue_hooks _items.relays _primitives._asyncio",
        "a hook: an item is added",
    ),
    "asyncio.queues.Queue._queue": PrivateName("_primitives._asyncio", "the items that wait"),
    "asyncio.runners.Runner._context": PrivateName(
        "_primitives._asyncio_callbacks", "the context in which each run begins", since=(3, 11)
    ),
    "asyncio.selector_events.BaseSelectorEventLoop._add_reader": PrivateName(
        "_primitives._asyncio_callbacks", "a layer: a reader is called for many events"
    ),
    "asyncio.selector_events.BaseSelectorEventLoop._add_writer": PrivateName(
        "_primitives._asyncio_callbacks", "a layer: a writer is called for many events"
    ),
    "asyncio.selector_events.BaseSelectorEventLoop._start_serving": PrivateName(
        "_observer.connection_hooks _primitives._asyncio_transports", "a layer: a server listens"
    ),
    "asyncio.selector_events._SelectorDatagramTransport": PrivateName(
        "_primitives._asyncio_transports", "layers of the transports of datagrams"
    ),
    "asyncio.selector_events._SelectorTransport": PrivateName(
        "_observer.connection_hooks _primitives._asyncio_transports", "layers of the transports"
    ),
    "asyncio.selector_events._SelectorTransport._add_reader": PrivateName(
        "_observer.connection_hooks _primitives._asyncio_transports", "a layer: it starts to read"
    ),
    "asyncio.queues.Queue._unfinished_tasks": PrivateName(
        "_items.pairing _items.queue_hooks", "how many items have been taken and are not done"
    ),
    "asyncio.selector_events._SelectorTransport._call_connection_lost": PrivateName(
        "_primitives._asyncio_transports", "a layer: the connection ends"
    ),
    "asyncio.selector_events._SelectorTransport._context": PrivateName(
        "_primitives._asyncio_transports",
        "whether the transport keeps the context of its callbacks by itself",
        since=(3, 15),
    ),
    "asyncio.sslproto.SSLProtocol._resume_reading": PrivateName(
        "_primitives._asyncio_transports", "a layer: TLS reads again", since=(3, 11)
    ),
    "asyncio.sslproto.SSLProtocol._transport": PrivateName(
        "_primitives._asyncio_transports", "the transport below TLS", since=(3, 11)
    ),
    "asyncio.tasks._wait": PrivateName(
        "_primitives._asyncio_waits", "a layer: `wait` has found tasks that are done"
    ),
    "asyncio.transports._FlowControlMixin": PrivateName(
        "_primitives._asyncio_transports", "layers of the transports with flow control"
    ),
    "asyncio.transports._FlowControlMixin._maybe_resume_protocol": PrivateName(
        "_primitives._asyncio_transports", "a layer: `resume_writing` is called"
    ),
    "asyncio.transports._FlowControlMixin._protocol_paused": PrivateName(
        "_primitives._asyncio_transports", "whether `resume_writing` is about to be called"
    ),
    "asyncio.unix_events._UnixReadPipeTransport": PrivateName(
        "_primitives._asyncio_transports", "layers of the transports of pipes", only_posix=True
    ),
    "asyncio.unix_events._UnixReadPipeTransport._call_connection_lost": PrivateName(
        "_primitives._asyncio_transports", "a layer: the pipe is closed", only_posix=True
    ),
    "asyncio.unix_events._UnixSelectorEventLoop": PrivateName(
        "_primitives._asyncio_callbacks", "a layer of `add_signal_handler`", only_posix=True
    ),
    "asyncio.unix_events._UnixSelectorEventLoop._signal_handlers": PrivateName(
        "_primitives._asyncio_callbacks", "the handle of the handler of a signal", only_posix=True
    ),
    "asyncio.unix_events._UnixWritePipeTransport": PrivateName(
        "_primitives._asyncio_transports", "layers of the transports of pipes", only_posix=True
    ),
    "asyncio.unix_events._UnixWritePipeTransport._call_connection_lost": PrivateName(
        "_primitives._asyncio_transports", "a layer: the pipe is closed", only_posix=True
    ),
}
