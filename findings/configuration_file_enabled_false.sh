#!/usr/bin/env bash
# A configuration file that disables an instrumentor does not disable it under opentelemetry-instrument.
#
# One would guess: with `instrumentation/development: python: urllib: {enabled: false}` in the file that
# OTEL_CONFIG_FILE names, urllib is not instrumented, whoever loads the instrumentors.
# What happens: opentelemetry-configuration leaves that instrumentor out
# (opentelemetry.configuration.instrumentation.configure_instrumentation), and a moment later the loader
# of opentelemetry-instrument, which does not read the file, switches on every instrumentor that is
# installed (opentelemetry.instrumentation.auto_instrumentation._load._load_instrumentors). With options
# instead of `enabled: false` the second call logs "Attempting to instrument while already instrumented".
# Why it matters: an operator who turns an instrumentor off that propagates context, since it is in the
# way of another, sees no effect and no message. OTEL_PYTHON_DISABLED_INSTRUMENTATIONS works.
# Seen with opentelemetry-configuration 0.66b1, opentelemetry-instrumentation 0.66b1, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    opentelemetry-configuration==0.66b1 opentelemetry-distro==0.66b1 \
    opentelemetry-instrumentation-urllib==0.66b1

cat >configuration.yaml <<'YAML'
file_format: "1.0"
instrumentation/development:
  python:
    urllib: {enabled: false}
YAML
cat >program.py <<'PYTHON'
from opentelemetry.instrumentation.urllib import URLLibInstrumentor

print("instrumented:", URLLibInstrumentor().is_instrumented_by_opentelemetry)
PYTHON

run() { OTEL_CONFIG_FILE=configuration.yaml env/bin/opentelemetry-instrument env/bin/python program.py 2>log; }
by_file=$(run)
by_variable=$(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=urllib run)
sed -i 's/{enabled: false}/{excluded_urls: healthz}/' configuration.yaml
with_options=$(run)
warning=$(grep -c 'Attempting to instrument while already instrumented' log || true)

env/bin/python -m pip list 2>/dev/null | grep -E '^opentelemetry-(configuration|instrumentation) '
echo "enabled: false in the file       $by_file"
echo "disabled by the variable         $by_variable"
echo "options in the file              $with_options, warnings: $warning"
[ "$by_file" = "instrumented: True" ] && [ "$by_variable" = "instrumented: False" ] && [ "$warning" = 1 ]
