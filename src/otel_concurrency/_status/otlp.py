"""Whether what the environment asks for can be exported with the exporters that are installed.

OTLP goes by gRPC unless a variable says otherwise. If only the exporter for HTTP is installed, the
SDK logs one error at start-up among others, and nothing is exported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

SIGNALS = ("traces", "metrics", "logs")
"""The signals, by the names in OpenTelemetry's environment variables and entry points."""

_NAMES = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
"""By protocol: the entry point of its exporter (``opentelemetry.sdk._configuration``, 1.45)."""

_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def mismatches(
    variables: Mapping[str, str] = os.environ, *, by_default: str = "none"
) -> Iterator[str]:
    """Yield a sentence for each exporter that ``variables`` ask for and that is not installed.

    ``by_default`` is the exporter of signals for which they name none.
    """
    if variables.get("OTEL_CONFIG_FILE"):
        return  # the exporters are in the file
    found: dict[str, list[str]] = {}
    for signal in SIGNALS:
        names = variables.get(f"OTEL_{signal.upper()}_EXPORTER") or by_default
        for name in map(str.strip, names.split(",")):
            sentence = _about(name, signal, variables)
            if sentence:
                found.setdefault(sentence, []).append(signal)
    for sentence, signals in found.items():
        yield f"{', '.join(signals)}: {sentence}"


def default() -> str:
    """Return the exporter that ``opentelemetry-instrument`` uses here if no variable names one."""
    return "otlp" if entry_points(group="opentelemetry_distro") else "none"


def _about(name: str, signal: str, variables: Mapping[str, str]) -> str:
    """Return what is wrong with the exporter ``name`` of ``signal``, without naming the signal."""
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    if not variables.get(variable, "").strip():
        variable = _PROTOCOL
    protocol = variables.get(variable, "").strip() or "grpc"
    installed = {each.name for each in entry_points(group=f"opentelemetry_{signal}_exporter")}
    if name != "otlp" or _NAMES.get(protocol) in installed:
        return ""
    is_default = " (the default)" if protocol == "grpc" else ""
    asked_for = f"OTLP is to be sent by {variable}={protocol}{is_default}"
    if protocol not in _NAMES:
        return f"{asked_for}, which the SDK does not know: it knows {' and '.join(_NAMES)}"
    package = f"opentelemetry-exporter-{_NAMES[protocol].replace('_', '-')}"
    others = [each for each, exporter in _NAMES.items() if exporter in installed]
    if not others:
        return f"{asked_for}, and no exporter of OTLP is installed: install {package}"
    return (
        f"{asked_for}, and only the exporter for {others[0]} is installed: set "
        f"{variable}={others[0]}, or install {package}"
    )
