"""5 folds x 20 precisions, every fit within 1e-6 nats a row of its optimum, beside LogisticRegressionCV.

The grid is that of `LogisticRegressionCV(Cs=20)`, the folds are the same, refitting is off. scikit-learn takes the
folds one after the other, each from the strongest prior to the weakest, or at once in two processes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit

import probsoftmax as ps
from benchmarks import truth
from benchmarks.peers import MAX_STEPS
from benchmarks.racing import Contender, Race
from benchmarks.samples import MAKERS
from benchmarks.workers import CORES

FOLDS = 5
CS = np.logspace(-4, 4, 20)
ACCURACY = 1e-6
"""Nats for each row of a fit."""
SOLVERS = ("newton-cg", "lbfgs")
RACES = {"digits": 15.0}
"""Data, and the ratio that is aimed at."""
LARGE = ()


def race(name: str) -> Race:
    """The folds of one data set."""
    x, y = MAKERS[name]()
    data, taus = ps.make_data(x, y), jnp.asarray(1 / CS)
    (n, d), k = x.shape, data.num_classes
    fold = np.asarray(ps.stratified_folds(data, FOLDS, jax.random.key(0)))
    kept = jnp.asarray(1.0 * (fold[None, :] != np.arange(FOLDS)[:, None]))
    rows = np.asarray(kept).sum(axis=1)[:, None]

    def ours(_: float) -> truth.Fits:
        found = jax.block_until_ready(ps.cross_validate(data, taus, folds=fold))
        return truth.Fits(None, None, found.passes, np.asarray(found.gap) / rows)

    def peer(solver: str) -> Contender:
        return Contender(
            f"scikit-learn LogisticRegressionCV, {solver}",
            lambda tolerance: theirs(x, y, fold, solver, tolerance),
            ("1 thread", "2 threads", "2 processes"),
        )

    return Race(
        f"{name}: {n} x {d} x {k}, {x.dtype}",
        (Contender("cross_validate", ours, CORES, compiles=True),),
        tuple(peer(solver) for solver in SOLVERS),
        truth.of_folds(data, kept, taus, ACCURACY),
        RACES[name],
        guess=1e-7,
    )


def theirs(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, solver: str, tolerance: float
) -> truth.Fits:
    """scikit-learn's fits of all folds."""
    peer: Any = LogisticRegressionCV
    model = peer(
        Cs=CS,
        l1_ratios=(0,),
        cv=PredefinedSplit(fold),
        solver=solver,
        tol=tolerance,
        max_iter=MAX_STEPS,
        scoring="neg_log_loss",
        refit=False,
        use_legacy_attributes=False,
    )
    # (folds, penalties, Cs, classes, features + 1)
    coefficients = model.fit(x, y).coefs_paths_[:, 0]
    return truth.Fits(np.moveaxis(coefficients[..., :-1], -1, -2), coefficients[..., -1])
