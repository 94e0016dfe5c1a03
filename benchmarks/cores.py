"""All cores or one: what a compiler for CPUs gains by spreading a program over them, and what it loses.

Each in a process of its own that may use all cores or the first of them (Linux only). To hand work to another core
takes as long as the work where arrays are small, and every product and every sum of a fit is handed over. A program
cannot say that it wants one core; who runs it can: `taskset -c 0 python ...`.
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
    header = ["", "all cores, s", "one core, s", "ratio"]
    return [Table(name, header, [_row(name, task) for task in TASKS]) for name in SAMPLES]


def _row(name: str, task: str) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    every, one = (_seconds(name, task, some) for some in (cores, cores[:1]))
    return [task, number(every), number(one), number(one / every)]


def _seconds(name: str, task: str, cores: list[int]) -> float:
    command = [sys.executable, "-m", "benchmarks.cores", name, task]
    # Threads inherit what their process may use, and JAX counts it when it starts its own.
    printed = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
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
