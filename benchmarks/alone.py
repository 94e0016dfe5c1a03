"""One run in a process of its own: the first call, compilation and all, and the memory that it takes.

    python -m benchmarks.alone sweeps digits fit_path '2 threads' 1e-6

The memory is what the process grows by at its peak, as Linux counts it, while programs that are compiled already run:
XLA takes half a gigabyte to compile a small one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.workers import hold_to_cores, run_here

PROCESS = Path("/proc/self")


class Alone(NamedTuple):
    """What the process saw."""

    seconds: float
    mebibytes: float | None
    """None where the system does not say (anything but Linux)."""


def run_alone(question: str, name: str, contender: str, way: str, tolerance: float) -> Alone:
    """Start the process, without any cache of compiled programs, and wait for it."""
    arguments = ["-m", "benchmarks.alone", question, name, contender, way, repr(float(tolerance))]
    printed = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
    ).stdout
    return Alone(*json.loads(printed))


def main(question: str, name: str, contender: str, way: str, tolerance: str) -> None:
    """What the process does."""
    hold_to_cores(way)
    with jax.enable_x64(True):
        race = import_module(f"benchmarks.{question}").race(name)
        chosen = race.contender(contender)

        def once() -> tuple[float, Any]:
            return run_here(chosen, float(tolerance), way, float("inf"))

        first: list[float] = []
        memory = added_memory(lambda: first.append(once()[0]))
        if chosen.compiles:
            memory = added_memory(once)
        print(json.dumps(Alone(first[0], memory)))


def added_memory(run: Callable[[], Any]) -> float | None:
    """What the process grows by at its peak during a run, in MiB; None where the system does not say."""
    before = _forget_the_peak()
    run()
    return None if before is None else _memory("VmHWM") - before


def _forget_the_peak() -> float | None:
    """Let the peak be what is in use now, and return that."""
    try:
        (PROCESS / "clear_refs").write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(what: str) -> float:
    """A line of the process's status, in MiB."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
