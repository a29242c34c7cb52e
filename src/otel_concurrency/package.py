"""What `opentelemetry-bootstrap` and the auto-instrumentation loader may ask of a package.

The library instruments the standard library, so there is nothing that has to be installed first.
"""

_instruments: tuple[str, ...] = ()

_supports_metrics = True
