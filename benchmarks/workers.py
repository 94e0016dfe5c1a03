"""Contenders in processes of their own, each with one core or with all: none feels what another leaves behind.

In one process they are not independent. The threads of a library of linear algebra turn in circles for a while after
their work, in case there is more, and take the core that the next contender wants; and what a process may use it must
be told before its threads start, so one that wants a single core needs a process anyway.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import jax
import numpy as np
from joblib import parallel_config
from threadpoolctl import threadpool_limits

from benchmarks.truth import Fits

ALL_CORES, ONE_CORE = "all cores", "1 core"
ONE_FOR_LAPACK = "1 thread for LAPACK"
DEVICES = "2 devices"
WAYS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "1 thread": lambda: threadpool_limits(1),
    "2 threads": lambda: threadpool_limits(2),
    "2 processes": lambda: parallel_config(n_jobs=2),
    ALL_CORES: nullcontext,
    ONE_FOR_LAPACK: lambda: threadpool_limits(1, user_api="blas"),
    ONE_CORE: nullcontext,
    DEVICES: nullcontext,
}
"""How a machine of two cores may be used: scikit-learn by the first three, XLA by the others. For those a user sets
nothing, OPENBLAS_NUM_THREADS=1, ``taskset``, and ``jax_num_cpu_devices``."""
THREADS = ("1 thread", "2 threads")
CORES = (ALL_CORES, ONE_FOR_LAPACK)
CORES += (ONE_CORE,) if hasattr(os, "sched_setaffinity") else ()
"""XLA takes all that there are; only Linux can hold a process to one."""
LOOSE = 0.1
"""The tolerance of a first run, which is not measured: programs are compiled in it, and other processes started."""


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function returns."""
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


def run_here(contender: Any, tolerance: float, way: str, limit: float) -> tuple[float, Fits]:
    """Seconds of one run, and what it finds; ``TimeoutError`` if it takes longer than ``limit``.

    To say how many threads there are takes up to 10 ms (every loaded library is asked), which are nobody's.
    """
    with WAYS[way](), at_most(limit):
        return timed(lambda: contender.run(tolerance))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """``TimeoutError`` after so many seconds, as soon as Python has its turn again."""

    def give_up(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds if seconds < np.inf else 0)  # 0: never
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Workers:
    """The processes of one race; they end with the ``with`` statement."""

    def __init__(self, question: str, name: str) -> None:
        self._race = (question, name)
        self._started: dict[tuple[str, str], tuple[Any, Connection]] = {}

    def __enter__(self) -> "Workers":
        """Nothing is started before it is asked for."""
        return self

    def __exit__(self, *_: object) -> None:
        """All of them end."""
        for process, pipe in self._started.values():
            pipe.close()
            process.join(timeout=10)
            process.kill()

    def run(self, contender: Any, tolerance: float, way: str, limit: float) -> tuple[float, Fits]:
        """What ``run_here`` does, in the process of this contender and this way."""
        key = (contender.name, way)
        if key not in self._started:
            self._started[key] = self._start(*key)
        pipe = self._started[key][1]
        pipe.send((tolerance, limit))
        answer = pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _start(self, contender: str, way: str) -> tuple[Any, Connection]:
        context = get_context("spawn")
        mine, other = context.Pipe()
        process = context.Process(
            target=serve, args=(*self._race, contender, way, other), daemon=False
        )
        process.start()
        other.close()
        return process, mine


def serve(question: str, name: str, contender: str, way: str, pipe: Connection) -> None:
    """What such a process does: build the race, run once, then run whenever it is told a tolerance and a limit."""
    hold_to_cores(way)
    with jax.enable_x64(True):
        chosen = import_module(f"benchmarks.{question}").race(name).contender(contender)
        run_here(chosen, LOOSE, way, np.inf)
        while True:
            try:
                tolerance, limit = pipe.recv()
            except EOFError:
                return
            try:
                seconds, fits = run_here(chosen, tolerance, way, limit)
                arrays = (None if part is None else np.asarray(part) for part in fits)
                pipe.send((seconds, Fits(*arrays)))
            except Exception as error:  # the parent raises it
                pipe.send(error)


def hold_to_cores(way: str) -> None:
    """Threads inherit what their process may use, and JAX counts it when it starts its own."""
    if way == ONE_CORE:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    if way == DEVICES:
        jax.config.update("jax_num_cpu_devices", 2)
