"""A sweep of 45 precisions, every fit within 1e-6 nats a row of its optimum, beside loops of fits.

The grid is that of the DINO evaluations, C = 10**linspace(-6, 5, 45). A loop counts as the worst of its fits does;
started warm, it goes from the strongest prior to the weakest.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import probsoftmax as ps
from benchmarks import truth
from benchmarks.peers import Lane, optax_fits, sklearn_fits
from benchmarks.racing import Contender, Race
from benchmarks.samples import MAKERS
from benchmarks.workers import CORES, THREADS

CS = 10 ** np.linspace(-6, 5, 45)
ACCURACY = 1e-6
"""Nats for each row of a fit."""
RACES: dict[str, tuple[str, Any, float | None]] = {
    "digits": ("digits", np.float64, 25),
    "S": ("S", np.float64, 15),
    "S in float32": ("S", np.float32, 25),
    "S, ill-conditioned": ("S, ill-conditioned", np.float64, None),
    "S, nearly separable": ("S, nearly separable", np.float64, None),
}
"""Data, dtype, and the ratio that is aimed at."""
LARGE = ()
SOLVERS = ("newton-cg", "lbfgs")
"""newton-cholesky takes minutes for one fit of S."""


def race(name: str) -> Race:
    """The sweep of one data set."""
    sample, dtype, target = RACES[name]
    x, y = MAKERS[sample]()
    x = x.astype(dtype)
    data, taus = ps.make_data(x, y), jnp.asarray(1 / CS, dtype)
    (n, d), k = x.shape, data.num_classes
    lanes: list[Lane] = [(x, y, None, c) for c in CS]

    def ours(_: float) -> truth.Fits:
        return truth.of_ours(ps.fit_path(data, taus), n)

    def peer(solver: str, warm: bool) -> Contender:
        start = "warm" if warm else "cold"
        return Contender(
            f"scikit-learn {solver}, {start}",
            lambda tolerance: sklearn_fits(lanes, solver, warm, tolerance),
            THREADS,
        )

    def with_optax(tolerance: float) -> truth.Fits:
        return jax.block_until_ready(optax_fits(data, taus, tolerance, warm=True))

    return Race(
        f"{name}: {n} x {d} x {k}, {np.dtype(dtype)}",
        (Contender("fit_path", ours, CORES, compiles=True),),
        (
            *(peer(solver, warm) for warm in (True, False) for solver in SOLVERS),
            Contender("optax.lbfgs, warm", with_optax, CORES, compiles=True),
        ),
        truth.of_sweep(x, y, 1 / CS, ACCURACY),
        target,
        guess=1e-7,
        rounds=2,
    )
