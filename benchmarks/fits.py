"""One fit, to the same excess: a prior of precision 1 and a weak one, and precision 1 to many more digits.

Ours is the solver that `fit_map` takes if none is named, told the tolerance, and another beside it.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import probsoftmax as ps
from benchmarks import samples, truth
from benchmarks.peers import SOLVERS, has_nemos, nemos_fit, optax_fits, sklearn_fits
from benchmarks.racing import Contender, Race
from benchmarks.workers import CORES, THREADS
from probsoftmax.fit import choose_solver

TARGETS = {"digits": 2, "S": 2, "M": 3}
QUESTIONS = ((1.0, 1e-6), (1e-3, 1e-6), (1.0, 1e-10))
"""Precision, and nats a row."""
RACES = {
    f"{sample}, precision {tau:g} to {accuracy:.0e}": (sample, tau, accuracy)
    for sample in TARGETS
    for tau, accuracy in QUESTIONS
}
LARGE = [name for name in RACES if name.startswith("M")]
"""A fit of M takes scikit-learn minutes."""
DENSE = 20_000
"""Coefficients up to which there is room for a Hessian: of M it would take 47 GB."""


def race(name: str) -> Race:
    """One fit of one data set."""
    sample, tau, accuracy = RACES[name]
    x, y = samples.MAKERS[sample]()
    data, prior = ps.make_data(x, y), ps.GaussianPrior(tau)
    (n, d), k = x.shape, data.num_classes

    def ours(solver: Any, name: str) -> Contender:
        def fit(tolerance: float) -> truth.Fits:
            found = ps.fit_map(data, prior, solver=replace(solver, tolerance=tolerance))
            return truth.of_ours(jax.tree.map(lambda leaf: leaf[None], found), n)

        return Contender(f"fit_map, {name}", fit, CORES, compiles=True)

    def peer(solver: str) -> Contender:
        return Contender(
            f"scikit-learn {solver}",
            lambda tolerance: sklearn_fits([(x, y, None, 1 / tau)], solver, False, tolerance),
            THREADS,
        )

    def with_optax(tolerance: float) -> truth.Fits:
        return jax.block_until_ready(optax_fits(data, jnp.array([tau]), tolerance, warm=False))

    nemos = Contender(
        "NeMoS", lambda tolerance: nemos_fit(x, y, tau, tolerance), CORES, compiles=True
    )
    chosen = choose_solver(d, k)
    other = ps.NewtonCG() if isinstance(chosen, ps.LBFGS) else ps.LBFGS()
    return Race(
        f"{name} nats a row: {n} x {d} x {k}, {x.dtype}",
        tuple(ours(each, type(each).__name__) for each in (chosen, other)),
        (
            *(
                peer(solver)
                for solver in SOLVERS
                if (d + 1) * k <= DENSE or "cholesky" not in solver
            ),
            Contender("optax.lbfgs", with_optax, CORES, compiles=True),
            *([nemos] if has_nemos() else []),
        ),
        truth.of_sweep(x, y, np.array([tau]), accuracy),
        TARGETS[sample],
        guess=1e-5 if accuracy > 1e-8 else 1e-7,
        longest=1800 if name in LARGE else 60,
    )
