"""Has the processes that a program starts be under ``opentelemetry-instrument``, as it is itself.

Newer versions of that command see to it; before 0.60 or so it kept its children out of it.
"""

import os

from opentelemetry.instrumentation import auto_instrumentation

directory = os.path.dirname(auto_instrumentation.__file__)
paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
if directory not in paths:
    os.environ["PYTHONPATH"] = os.pathsep.join([directory, *paths])
