"""Libraries that need no adapter: what they use of the standard library carries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import dask
import pytest
from suite import Calls, check_processes


class _Works(Calls):
    needs_adapter = False


class TestDaskThreads(_Works):
    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self):
        with ThreadPoolExecutor(1) as self.pool, dask.config.set(pool=self.pool):
            yield

    def hand_off(self, work):
        (result,) = dask.compute(dask.delayed(work, pure=False)(), scheduler="threads")
        return result


PROCESSES = {
    "mpire": """
from mpire import WorkerPool
pool = WorkerPool(1, keep_alive=False)
def hand_off(function):
    (result,) = pool.map(function, [1])
    return result
def close():
    pool.stop_and_join()
""",
    "aiomultiprocess": """
import asyncio
from aiomultiprocess import Worker
from suite_work import clean, work
async def a_work():
    return work()
async def a_clean():
    return clean()
def hand_off(function):
    async def main():
        return await Worker(target={work: a_work, clean: a_clean}[function])
    return asyncio.run(main())
def close():
    pass
""",
    "aiomultiprocess, a pool": """
import asyncio
from aiomultiprocess import Pool
from suite_work import clean, work
async def a_work():
    return work()
async def a_clean():
    return clean()
loop, pools = asyncio.new_event_loop(), []
async def a_pool():
    return Pool(1)
def hand_off(function):
    pools[:] = pools or [loop.run_until_complete(a_pool())]
    return loop.run_until_complete(pools[0].apply({work: a_work, clean: a_clean}[function]))
def close():
    pools[0].close()
    loop.run_until_complete(pools[0].join())
    loop.close()
""",
    "dask": """
import dask
def hand_off(function):
    (result,) = dask.compute(dask.delayed(function, pure=False)(), scheduler="processes")
    return list(result)
def close():
    pass
""",
}


@pytest.mark.parametrize("way", PROCESSES.values(), ids=PROCESSES)
def test_processes(way, tmp_path, monkeypatch):
    """Parent and baggage cross, and nothing is left to the next task."""
    check_processes(way, tmp_path, monkeypatch)
