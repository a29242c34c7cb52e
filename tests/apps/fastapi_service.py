"""A FastAPI service whose endpoints hand work on and answer without waiting for it."""

import asyncio
import contextlib

import workload
from fastapi import BackgroundTasks, FastAPI
from workload import work


@contextlib.asynccontextmanager
async def lifespan(_app):
    """Finish all work before the server leaves (uvicorn leaves by signal, with no atexit)."""
    yield
    workload.finish()


app = FastAPI(lifespan=lifespan)


async def work_later(name):
    """Work after another turn of the loop."""
    await asyncio.sleep(0)
    work(name)


@app.get("/sync/{request}")
def sync_endpoint(request: str, background: BackgroundTasks):
    """Hand on from one of the framework's worker threads."""
    workload.hand_on()
    background.add_task(work, "sync background task")
    background.add_task(work_later, "async background task")
    return request


@app.get("/async/{request}")
async def async_endpoint(request: str, background: BackgroundTasks):
    """Hand on from the event loop."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, work, "run_in_executor")
    await loop.run_in_executor(workload.executor, work, "run_in_executor, own pool")
    await asyncio.to_thread(work, "to_thread")
    task = asyncio.create_task(work_later("create_task"))
    loop.call_soon(work, "call_soon")
    await asyncio.to_thread(workload.hand_on)
    background.add_task(work, "sync background task")
    background.add_task(work_later, "async background task")
    await task
    return request
