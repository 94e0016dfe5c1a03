"""How far fits are from their optima: in float64, whatever they were computed in, over fits to full precision.

The optima are this package's own, but nobody has to believe them: each is certified, and refused unless its gap is
small beside what is to be measured.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import probsoftmax as ps

NEGLIGIBLE = 0.01
"""Of the accuracy that is asked for: what the gap of an optimum may be."""


class Fits(NamedTuple):
    """What a contender returns: many fits, their axes leading, and what it says of them itself."""

    weights: Any  # (..., d, k)
    biases: Any  # (..., k)
    passes: Any = None
    gap: Any = None
    """In nats a row."""


def of_ours(fit: ps.Fit, rows: Any) -> Fits:
    """A fit of this package, or many, of so many rows each."""
    fit = jax.block_until_ready(fit)
    return Fits(*fit.params, fit.passes, np.asarray(fit.gap) / rows)


class Truth(NamedTuple):
    """The objective of many fits, each at coefficients of its own, and their minima."""

    objectives: Callable[[ps.Params], Any]
    minima: Callable[[], np.ndarray]
    rows: Any
    """What an excess is divided by: the rows of each fit."""
    accuracy: float

    def excess(self, fits: Fits) -> float:
        """Of the worst fit, in nats a row; of fits whose coefficients are not told, their gap, a bound of it."""
        if fits.weights is None:
            return float(np.max(fits.gap))
        params = ps.Params(jnp.asarray(fits.weights, float), jnp.asarray(fits.biases, float))
        return float(np.max((np.asarray(self.objectives(params)) - self.minima()) / self.rows))


def _certified(
    optima: Callable[[], ps.Fit], rows: Any, accuracy: float
) -> Callable[[], np.ndarray]:
    """The objectives of the optima, found when they are asked for first, and refused if they are not certain."""

    @cache
    def minima() -> np.ndarray:
        best = optima()
        gap = float(np.max(np.asarray(best.gap) / rows))
        if not gap <= NEGLIGIBLE * accuracy:
            raise ArithmeticError(f"an optimum is known to {gap:.1e} nats a row only")
        return np.asarray(best.objective)

    return minima


def of_sweep(x: np.ndarray, y: np.ndarray, precisions: np.ndarray, accuracy: float) -> Truth:
    """One data set under many precisions."""
    data, taus = ps.make_data(x.astype(float), y), jnp.asarray(precisions, float)
    solver = ps.LBFGS(pairs=20)
    minima = _certified(lambda: ps.fit_path(data, taus, solver=solver), len(y), accuracy)
    return Truth(lambda params: _of_precisions(params, data, taus), minima, len(y), accuracy)


@jax.jit
def _of_precisions(params: ps.Params, data: ps.Data, precisions: jax.Array) -> jax.Array:
    def objective(one: tuple[ps.Params, jax.Array]) -> jax.Array:
        return ps.map_objective(one[0], data, ps.GaussianPrior(one[1]))

    return jax.lax.map(objective, (params, precisions))


def of_folds(data: ps.Data, kept: jax.Array, precisions: jax.Array, accuracy: float) -> Truth:
    """One data set under several vectors of weights, each under many precisions."""

    @jax.jit
    def objectives(params: ps.Params) -> jax.Array:
        def of_fold(one: tuple[ps.Params, jax.Array]) -> jax.Array:
            return _of_precisions(one[0], replace(data, weights=one[1]), precisions)

        return jax.lax.map(of_fold, (params, kept))

    @jax.jit
    def optima() -> ps.Fit:
        solver = ps.LBFGS(pairs=20)
        return jax.lax.map(
            lambda weights: ps.fit_path(replace(data, weights=weights), precisions, solver=solver),
            kept,
        )

    rows = np.asarray(kept).sum(axis=1)[:, None]
    return Truth(objectives, _certified(optima, rows, accuracy), rows, accuracy)


def of_many(data: ps.Data, axes: ps.Data, prior: ps.GaussianPrior, accuracy: float) -> Truth:
    """Many data sets, mapped over ``axes``, under one prior; the rows of each count n."""
    objective = jax.jit(jax.vmap(partial(ps.map_objective, prior=prior), in_axes=(0, axes)))
    fit = jax.jit(jax.vmap(partial(ps.fit_map, prior=prior), in_axes=(axes,)))
    rows = data.features.shape[-2]
    minima = _certified(lambda: fit(data), rows, accuracy)
    return Truth(lambda params: objective(params, data), minima, rows, accuracy)
