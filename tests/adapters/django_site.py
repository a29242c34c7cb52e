"""Django, configured once for all tests of a process."""

from __future__ import annotations

from importlib.util import find_spec

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="tests",
        INSTALLED_APPS=[
            *("django.contrib.contenttypes", "django_q"),
            *(["django_tasks_db"] if find_spec("django_tasks_db") else ()),
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        Q_CLUSTER={"name": "tests", "orm": "default", "retry": 60, "timeout": 30},
        TASKS={
            "default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
            "database": {"BACKEND": "django_tasks_db.DatabaseBackend"},
        },
        USE_TZ=True,
    )
    django.setup()
