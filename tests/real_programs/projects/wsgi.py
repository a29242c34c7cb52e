"""An application for gunicorn: each request uses a pool, a thread, and a queue with its reader."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

from spans import span

POOL = ThreadPoolExecutor(2)
JOBS = queue.Queue()


def work(name, parent):
    """Do a part of the request ``parent``."""
    with span(name, parent):
        return name


def read_jobs():
    """Do what is put into the queue, for ever."""
    while True:
        job, done = JOBS.get()
        work(*job)
        done.set()
        del job, done


threading.Thread(target=read_jobs, daemon=True).start()


def application(environ, start_response):
    """Answer with the names of the parts of the work that was done in the pool."""
    path = environ["PATH_INFO"]
    with span(path):
        parts = list(POOL.map(work, [f"{path}/pool{n}" for n in range(2)], [path] * 2))
        thread = threading.Thread(target=work, args=(f"{path}/thread", path))
        thread.start()
        done = threading.Event()
        JOBS.put(((f"{path}/queue", path), done))
        done.wait()
        thread.join()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(parts).encode()]


os.write(2, b"application loaded\n")  # in one piece: three processes do it
