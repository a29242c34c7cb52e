"""Luigi's tasks, in two processes, below one span; each counts in a pool of its own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import luigi
from spans import span


def count(name, part):
    """Return the number of letters of ``part``."""
    with span(f"{name}/{part}", name):
        return len(part)


class Count(luigi.Task):
    number = luigi.IntParameter()
    directory = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(Path(self.directory) / f"{self.number}.txt")

    def run(self):
        name = f"task{self.number}"
        with span(name, "build"), ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(count, [name] * 2, ["one", "three"]))
        with self.output().open("w") as file:
            file.write(f"{counts}")


class Total(luigi.Task):
    directory = luigi.Parameter()

    def requires(self):
        return [Count(number, self.directory) for number in range(6)]

    def output(self):
        return luigi.LocalTarget(Path(self.directory) / "total.txt")

    def run(self):
        with span("total", "build"), self.output().open("w") as file:
            for target in self.input():
                with target.open() as part:
                    file.write(part.read())


with span("build"):
    done = luigi.build([Total(sys.argv[1])], workers=2, local_scheduler=True, log_level="WARNING")
print(Path(sys.argv[1], "total.txt").read_text())
sys.exit(not done)
