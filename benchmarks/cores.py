"""All cores or one: what a compiler for CPUs gains by spreading a program over them, and what it loses.

Each in a process of its own that may use all cores, all but with one thread for its linear algebra, or the first of
them alone (Linux only). To hand work to another core takes as long as the work where arrays are small, and every
product and every sum of a fit is handed over. And the threads that a LAPACK wakes, for the principal axes of 64
features, turn in circles for a while after their work, in case there is more. A program cannot say that it wants one
core, or none of that; who runs it can: `OPENBLAS_NUM_THREADS=1 python ...`, `taskset -c 0 python ...`. (Folds are
spread over the cores by `cross_validate` itself, which holds LAPACK to one thread.)
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

import probsoftmax as ps
from benchmarks import samples
from benchmarks.sweeps import CS
from benchmarks.tables import Table, number

SAMPLES = ("digits", "S")
TASKS: dict[str, Callable[[ps.Data], Any]] = {
    "fit_map, precision 1": lambda data: ps.fit_map(data, ps.GaussianPrior(1.0)),
    "fit_path": lambda data: ps.fit_path(data, jnp.asarray(1 / CS)),
    "cross_validate": lambda data: ps.cross_validate(
        data, jnp.logspace(-4, 4, 20), key=jax.random.key(0)
    ),
}
TURN = 3.0
"""Seconds for which a process runs its task again and again."""


def tables() -> list[Table]:
    """One for each sample."""
    header = ["", "all cores, s", "one thread for LAPACK, s", "ratio", "one core, s", "ratio"]
    return [Table(name, header, [_row(name, task) for task in TASKS]) for name in SAMPLES]


def _row(name: str, task: str) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    every = _seconds(name, task, cores)
    others = _seconds(name, task, cores, OPENBLAS_NUM_THREADS="1"), _seconds(name, task, cores[:1])
    return [task, number(every), *(cell for s in others for cell in (number(s), number(s / every)))]


def _seconds(name: str, task: str, cores: list[int], **settings: str) -> float:
    command = [sys.executable, "-m", "benchmarks.cores", name, task]
    # Threads inherit what their process may use, and JAX counts it when it starts its own.
    printed = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=os.environ | settings,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ).stdout
    return json.loads(printed)


def main(name: str, task: str) -> None:
    """What the process does: the shortest of its runs."""
    with jax.enable_x64(True):
        data, times = ps.make_data(*samples.MAKERS[name]()), []
        jax.block_until_ready(TASKS[task](data))
        end = perf_counter() + TURN
        while perf_counter() < end:
            start = perf_counter()
            jax.block_until_ready(TASKS[task](data))
            times.append(perf_counter() - start)
    print(json.dumps(min(times)))


if __name__ == "__main__":
    main(*sys.argv[1:])
