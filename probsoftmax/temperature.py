r"""Temperature scaling: one number that makes a classifier as sure as it is right.

Scores are divided by a temperature, :math:`p = \mathrm{softmax}(\eta / T)`, which changes no prediction, only how sure
it is. With the inverse temperature :math:`\beta = 1/T` and scores measured from those of the label,
:math:`d_{ij} = \eta_{ij} - \sum_l y_{il} \eta_{il}`, the negative log-likelihood

.. math:: f(\beta) = \sum_i s_i \log \sum_j e^{\beta d_{ij}}, \qquad
          f' = \sum_i s_i\, \mathrm{E}_p[d_i], \qquad f'' = \sum_i s_i\, \mathrm{Var}_p[d_i]

is convex in :math:`\beta`: there is one optimum, and signs of f' on both sides of it enclose it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from probsoftmax.calibration import Rows, weighted_rows
from probsoftmax.numerics import compute_dtype, logsumexp, softmax
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.status import Status

STEPS = 200


class TemperatureFit(NamedTuple):
    """The best temperature and what is known about it. Arrays, so that it vmaps."""

    temperature: Float[Array, ""]
    """T: scores are to be divided by it. inf where the scores say nothing, or the opposite, of the labels."""
    inverse_temperature: Float[Array, ""]
    """1/T, at least 0: finite always, so the safer number to multiply scores by."""
    objective: Float[Array, ""]
    """The negative log-likelihood at T, a weighted sum, in nats."""
    gap: Float[Array, ""]
    """At most so many nats above the minimum, but for the rounding of f'."""
    steps: Int[Array, ""]
    status: Int[Array, ""]
    """``CONVERGED``; ``SEPARATED`` if every label has the highest score of its row, so that T = 0 would be best, and T
    is as low as makes a difference; ``DIVERGED`` for NaN, or a label whose score is -inf."""


def fit_temperature(
    logits: Float[ArrayLike, "n k"],
    labels: Int[ArrayLike, " n"] | Float[ArrayLike, "n k"],
    *,
    weights: Float[ArrayLike, " n"] | None = None,
) -> TemperatureFit:
    r"""The temperature that makes held-out labels most probable, with a bound on how far it is from the best.

    Take rows that the classifier was not fitted to: on its own rows it looks as good as it ever will. Works under
    ``jit`` and ``vmap``, and under ``grad`` by the implicit function theorem.

    Args:
        logits: scores of the n rows. -inf is an impossible class, at any temperature.
        labels: classes 0..k-1, or rows of label probabilities.
        weights: of the rows, >= 0; 1 each if ``None``. Rows of weight 0 are as if absent.

    Returns:
        The temperature; 1 if no row prefers any class, so that any would do. Scores that are multiplied by a number
        have their temperature multiplied by it.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: logits that are not real numbers, labels ``(n,)`` that are not integers.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks.

    >>> found = fit_temperature(jnp.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]), jnp.array([0, 0, 1]))
    >>> print(found.temperature)  # right two times in three: 4 / T = log 2
    5.77078
    """
    rows = weighted_rows("logits", logits, labels, weights)
    dtype = compute_dtype(rows.values.dtype)
    return _fit(Rows(*(part.astype(dtype) for part in rows)))


@jax.jit
def _fit(rows: Rows) -> TemperatureFit:
    # The search is a constant for derivatives; they go through one Newton step at its end.
    held = jax.lax.stop_gradient(rows)
    total, eps = jnp.sum(held.weights), jnp.finfo(held.values.dtype).eps
    unit, nearest = _extent(held)
    flat, ordered = unit == 0, _labels_come_first(held)
    # In units of the largest difference of scores nothing overflows, and no tolerance has a unit.
    scale = jnp.where(flat, 1, unit)
    found = _search(_away_from_label(held) / scale, held.weights / total)
    # Where every label comes first: what the others keep is below a rounding.
    coldest = jnp.log((held.values.shape[1] - 1) / eps) / nearest
    beta = jnp.where(flat, 1, jnp.where(ordered, coldest, found.place / scale))
    inside = ~flat & ~ordered & (found.place > 0)
    away = _away_from_label(rows)
    slope, curvature, _ = _slopes(away, rows.weights, beta)
    step = (slope - jax.lax.stop_gradient(slope)) / jax.lax.stop_gradient(curvature)
    beta = beta - jnp.where(inside, step, 0)
    objective = jnp.sum(rows.weights * logsumexp(_times(beta, away), axis=1))
    # f is convex: f - min f <= |f'| (high - low).
    width = jnp.where(found.place > 0, found.high - found.low, 0)
    gap = jnp.abs(jax.lax.stop_gradient(slope)) * width / scale
    close = gap <= 64 * eps * (1 + found.high) * total
    gap = jnp.where(flat, 0, jnp.where(ordered, objective - _infimum(held), gap))
    stopped = jnp.where(close, Status.CONVERGED, Status.PRECISION_FLOOR)
    status = jnp.where(found.done, stopped, Status.MAX_STEPS)
    status = jnp.where(flat, Status.CONVERGED, jnp.where(ordered, Status.SEPARATED, status))
    status = jnp.where(jnp.isfinite(objective), status, Status.DIVERGED).astype(jnp.int32)
    temperature = jnp.where(beta > 0, 1 / jnp.where(beta > 0, beta, 1), jnp.inf)
    broken = status == Status.DIVERGED
    temperature, beta = (jnp.where(broken, jnp.nan, x) for x in (temperature, beta))
    return TemperatureFit(temperature, beta, objective, gap, found.steps, status)


class _Search(NamedTuple):
    place: Float[Array, ""]
    low: Float[Array, ""]
    """f' < 0 here, or 0 itself."""
    high: Float[Array, ""]
    """f' >= 0 here."""
    step: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def _search(away: Float[Array, "n k"], weights: Float[Array, " n"]) -> _Search:
    """The root of f' at or above 0, by Newton's method inside an interval that encloses it."""
    zero = jnp.zeros((), away.dtype)
    eps = jnp.finfo(away.dtype).eps

    def move(at: _Search) -> _Search:
        slope, curvature, size = _slopes(away, weights, at.place)
        low = jnp.where(slope < 0, at.place, at.low)
        high = jnp.where(slope >= 0, at.place, at.high)
        newton = at.place - slope / jnp.where(curvature > 0, curvature, 1)
        # Upwards until f' is positive, then Newton where it halves its steps, else the middle: the geometric mean
        # over many octaves.
        wide = (low > 0) & (high > 4 * low)
        middle = jnp.where(wide, jnp.sqrt(low) * jnp.sqrt(high), low + (high - low) / 2)
        trusted = (newton > low) & (newton < high) & (curvature > 0)
        trusted &= 2 * jnp.abs(newton - at.place) <= jnp.abs(at.step)
        there = jnp.where(trusted, newton, middle)
        there = jnp.where(jnp.isinf(high), jnp.maximum(newton, 2 * at.place), there)
        step = there - at.place
        # Nothing is left of the step, or of f' but roundings; or the best place is 0.
        done = (jnp.abs(step) <= 2 * eps * there) | (jnp.abs(slope) <= 2 * eps * size)
        done |= (high == 0) | jnp.isnan(slope)
        place = jnp.where(done, at.place, there)
        return _Search(place, low, high, step, at.steps + 1, done)

    far = zero + jnp.inf
    start = _Search(zero, zero, far, far, jnp.int32(0), jnp.zeros((), bool))
    return jax.lax.while_loop(lambda at: ~at.done & (at.steps < STEPS), move, start)


def _slopes(
    away: Float[Array, "n k"], weights: Float[Array, " n"], beta: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """f' and f'' at an inverse temperature, and the sum of the magnitudes that f' is a sum of."""
    p = softmax(_times(beta, away), axis=1)
    finite = jnp.where(jnp.isneginf(away), 0, away)
    mean = jnp.sum(p * finite, axis=1)
    variance = jnp.sum(p * (finite - mean[:, None]) ** 2, axis=1)
    size = jnp.sum(p * jnp.abs(finite), axis=1)
    return jnp.sum(weights * mean), jnp.sum(weights * variance), jnp.sum(weights * size)


def _times(beta: Float[Array, ""], away: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Impossible classes stay so, also at 0 times -inf."""
    impossible = jnp.isneginf(away)
    return jnp.where(impossible, -jnp.inf, beta * jnp.where(impossible, 0, away))


def _away_from_label(rows: Rows) -> Float[Array, "n k"]:
    """d: scores less that of the label, which is 0 exactly for a label that is certain."""
    z, y, _ = rows
    own = jnp.sum(jnp.where(y == 0, 0, y * z), axis=1)
    return z - own[:, None]


def _extent(rows: Rows) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest difference of scores in any row, and the smallest between the highest and one that is not."""
    z, possible = rows.values, ~jnp.isneginf(rows.values)
    top = jnp.max(z, axis=1, initial=-jnp.inf)[:, None]
    behind = jnp.where(possible, top - z, 0)
    return jnp.max(behind, initial=0), jnp.min(
        jnp.where(behind > 0, behind, jnp.inf), initial=jnp.inf
    )


def _labels_come_first(rows: Rows) -> Bool[Array, ""]:
    """Whether no class has a score above that of any class with a share of the label."""
    z, y, _ = rows
    return jnp.all((y == 0) | (z == jnp.max(z, axis=1, keepdims=True)))


def _infimum(rows: Rows) -> Float[Array, ""]:
    """What is left at T = 0 if labels come first: the highest score may be that of several classes."""
    ties = jnp.sum(rows.values == jnp.max(rows.values, axis=1, keepdims=True), axis=1)
    return jnp.sum(rows.weights * jnp.log(ties.astype(rows.values.dtype)))
