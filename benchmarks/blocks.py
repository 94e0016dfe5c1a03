"""Rows in blocks: what a bound on the memory costs, in passes and in seconds.

200,000 rows, 64 features, 100 classes, float32, every fit within 1e-6 nats a row of its optimum. Each line is a
process of its own; its seconds are the shortest of three runs, compiled, and its memory is what a run adds to it at its
peak, the data not counted.

    python -m benchmarks blocks
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import probsoftmax as ps
from benchmarks.alone import added_memory
from benchmarks.samples import embeddings
from benchmarks.tables import Table, number
from benchmarks.workers import timed

N, D, K = 200_000, 64, 100
ACCURACY = 1e-6
ROUNDS = 3
BLOCKS = (None, 65_536, 16_384, 4_096)
PRECISIONS = 10.0 ** np.arange(3, -3, -1)

Fit = Callable[[ps.Data, int | None], ps.Fit]


def _map(solver: Any) -> Fit:
    def fit(data: ps.Data, row_block: int | None) -> ps.Fit:
        blocked = replace(solver, row_block=row_block)
        return ps.fit_map(data, ps.GaussianPrior(1.0), solver=blocked)

    return fit


def _path(data: ps.Data, row_block: int | None) -> ps.Fit:
    solver = ps.LBFGS(tolerance=ACCURACY, pairs=20, row_block=row_block)
    return ps.fit_path(data, jnp.asarray(PRECISIONS, jnp.float32), solver=solver)


FITS = {
    "fit_map, LBFGS": _map(ps.LBFGS(tolerance=ACCURACY)),
    "fit_map, NewtonCG": _map(ps.NewtonCG(tolerance=ACCURACY)),
    f"fit_path, {len(PRECISIONS)} precisions": _path,
}


def tables() -> list[Table]:
    """One for each kind of fit."""
    header = ["rows in a block", "passes", "seconds", "ratio", "gap", "memory, MiB"]
    found = []
    for name in FITS:
        lines = [_alone(name, row_block) for row_block in BLOCKS]
        rows = [
            [
                "all" if row_block is None else str(row_block),
                str(line["passes"]),
                number(line["seconds"]),
                number(line["seconds"] / lines[0]["seconds"]),
                f"{line['gap']:.0e}",
                "" if line["memory"] is None else f"{line['memory']:.0f}",
            ]
            for row_block, line in zip(BLOCKS, lines, strict=True)
        ]
        found.append(Table(f"{name}: {N} x {D} x {K}, float32", header, rows))
    return found


def _alone(name: str, row_block: int | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.blocks", name, json.dumps(row_block)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(printed)


def main(name: str, row_block: str) -> None:
    """What the process does."""
    x, y = embeddings(N, D, K)
    data = ps.make_data(x.astype(np.float32), y)
    del x, y

    def once() -> ps.Fit:
        return jax.block_until_ready(FITS[name](data, json.loads(row_block)))

    once()
    memory = added_memory(once)
    runs = [timed(once) for _ in range(ROUNDS)]
    fit = runs[0][1]
    result = {
        "seconds": min(seconds for seconds, _ in runs),
        "passes": int(jnp.sum(fit.passes)),
        "gap": float(jnp.max(fit.gap)) / N,
        "memory": memory,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
