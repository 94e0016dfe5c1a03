r"""The objective as the solvers see it, and the only place where they sum over the rows of X.

Coefficients are class-major, ``theta`` of shape ``(k, m)`` with m = d + 1 and the bias as the coefficient of a last
feature of ones; scores are ``(k, n)``, and the features ``(m, n)``: n is the axis along which memory is contiguous.
Softmax then reduces over the leading axis, and both products with X,

.. math:: \eta = \theta \tilde X^\top, \qquad \nabla = R \tilde X, \quad R_{ci} = s_i (p_{ci} - y_{ci}),

run at full speed (the first takes twice as long on a CPU if the rows are contiguous). One of each is a *pass*.

The features are centred and scaled here, which changes no fit: with :math:`x' = a x - c`,

.. math:: x' W' + b' = x\,(a W') + (b' - c W'), \qquad \tau' = a^2 \tau, \quad M' = M / a,

is the same family of scores with the same prior. Scales are powers of two, so nothing is rounded by them, and a fit
in seconds or in years, in float32 or at 1e20, takes the same steps. Centring would mix W into a penalised bias, so
it is left out where the bias has a prior.

The rows may be in blocks (``row_blocks.py``), so that scores never exist for more rows than a block has. Every sum over
the rows is then one sweep over the blocks, and what would hold a number for every row is stood for by what it is good
for: scores by the coefficients they come from, in which everything that is done to them is linear, and a residual by
its pull R X, which has all that is asked of it: the gradient, the slope along any direction, and in its last column,
that of the feature of ones, its own sum over the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.likelihood import sum_of_blocks
from probsoftmax.linear import Params
from probsoftmax.prior import GaussianPrior, expand, has_flat_bias, is_proper, value_of
from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.standardise import blank, standardised

T = TypeVar("T")

CACHE_LINE = 64
"""Bytes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Rows, prior and the change of coordinates of one fit."""

    features: Float[Array, "*blocks m n"]
    """Centred and scaled features and a last one of ones, feature-major. In row blocks these and the next two have a
    leading axis of blocks."""
    labels: Array
    """``(n,)`` classes, or class-major ``(k, n)`` probabilities."""
    weights: Float[Array, "*blocks n"]
    precision: Float[Array, "k m"]
    """tau' in these coordinates; 0 where the prior is flat."""
    mean: Float[Array, "k m"]
    absent: Bool[Array, " k"]
    """Classes without an example whose bias is flat. The likelihood only ever rises as such a bias falls, so there is
    no finite optimum: the class is left out of the fit, and its bias put out of the dtype's sight at the end."""
    extent: Float[Array, " d"]
    """The largest magnitude of each feature."""
    scale: Float[Array, " d"]
    """a, a power of two."""
    offset: Float[Array, " d"]
    """c; 0 where the bias has a prior."""
    mixed: bool = field(metadata={"static": True})
    """Whether the prior may be flat in some weights and not in others; a single precision never is."""
    flat_bias: bool = field(metadata={"static": True})
    """Whether it is known that no bias has a prior."""
    proper: bool = field(metadata={"static": True})
    """Whether it is known that every weight has a prior."""
    in_row_space: bool = field(default=False, metadata={"static": True})
    """Whether the features are coordinates in the span of the rows (``row_space.py``)."""
    base: Float[Array, "k n"] | None = None
    """Scores that are there before any coefficient: in the span of the rows those of the prior's mean."""

    @property
    def shape(self) -> tuple[int, int]:
        """(k, m), that of the coefficients."""
        k, m = self.precision.shape
        return k, m

    @property
    def bias_precision(self) -> Float[Array, " k"]:
        """That of the biases: zeros that need no computing if they are known."""
        tau = self.precision[:, -1]
        return jnp.zeros(tau.shape, tau.dtype) if self.flat_bias else tau

    @property
    def in_blocks(self) -> bool:
        """Whether the rows are in blocks."""
        return self.features.ndim == 3

    @property
    def total_weight(self) -> Float[Array, ""]:
        """Sum of the weights: what the tolerances are multiplied by, so that they do not depend on n."""
        return jnp.sum(self.weights)


def make_problem(data: Data, prior: GaussianPrior, params: Params, *, standardise: bool) -> Problem:
    """The problem of one fit in the dtype of ``params``; in the caller's own units unless ``standardise``."""
    terms = expand(prior, params)
    features = data.features.astype(params.weights.dtype)
    weights = data.weights.astype(features.dtype)
    features, weights, counted = blank(features, weights)
    if standardise:
        features, scale, offset = standardised(features, counted, terms, has_flat_bias(prior))
    else:
        scale = jnp.ones(features.shape[1], features.dtype)
        offset = jnp.zeros_like(scale)
    tau, tau_bias = terms.precision.T * scale[None, :] * scale[None, :], terms.bias_precision
    precision = jnp.concatenate([tau, tau_bias[:, None]], axis=1)
    mean = terms.mean.T / scale[None, :]
    mean = jnp.concatenate([mean, jnp.zeros_like(tau_bias)[:, None]], axis=1)
    labels, weights = _class_major(data, weights)
    absent = (_class_totals(labels, weights, data.num_classes) == 0) & (tau_bias == 0)
    mixed = jnp.ndim(value_of(prior.precision)) > 0
    extent = jnp.max(jnp.abs(features), axis=0, initial=0)
    return Problem(
        jnp.concatenate([features.T, jnp.ones((1, features.shape[0]), features.dtype)]),
        labels,
        weights,
        precision,
        mean,
        absent,
        extent,
        scale,
        offset,
        mixed,
        has_flat_bias(prior),
        is_proper(prior),
    )


def with_precision(problem: Problem, factor: Float[Array, ""]) -> Problem:
    """The same rows under a prior on the weights that is ``factor`` times as strong."""
    precision = problem.precision.at[:, :-1].multiply(factor)
    return replace(problem, precision=precision)


def _class_major(data, weights):
    """Labels as the solvers want them; a label that is no class makes its weight NaN, and so everything."""
    present = weights != 0
    if data.labels.ndim == 2:
        return jnp.where(present[None, :], data.labels.T.astype(weights.dtype), 0), weights
    labels = jnp.where(present, data.labels, 0)
    valid = (labels >= 0) & (labels < data.num_classes)
    return labels, jnp.where(valid, weights, jnp.nan)


def _class_totals(labels, weights, num_classes):
    if labels.ndim == 2:
        return jnp.matmul(labels, weights)
    return jnp.zeros(num_classes, weights.dtype).at[labels].add(weights, mode="drop")


def to_theta(problem: Problem, params: Params) -> Float[Array, "k m"]:
    """Coefficients of the caller's units in those of the problem: W' = W / a, b' = b + c W'."""
    weights = params.weights.astype(problem.features.dtype) / problem.scale[:, None]
    bias = params.bias.astype(weights.dtype) + jnp.matmul(
        problem.offset, weights, precision=HIGHEST
    )
    return jnp.concatenate([weights.T, bias[:, None]], axis=1)


def to_centred_params(problem: Problem, theta: Float[Array, "k m"]) -> Params:
    """The way back. A flat bias that is class-centred here need not be so in the caller's units: b = b' - c W'."""
    weights, bias = to_params(problem, theta)
    return Params(weights, bias - jnp.where(has_flat_biases(problem), jnp.mean(bias), 0))


def to_params(problem: Problem, theta: Float[Array, "k m"]) -> Params:
    """W = a W', b = b' - c W': linear in theta."""
    weights, bias = theta[:, :-1].T, theta[:, -1]
    bias = bias - jnp.matmul(problem.offset, weights, precision=HIGHEST)
    return Params(weights * problem.scale[:, None], bias)


def reach_of(problem: Problem, theta: Float[Array, "k m"]) -> Float[Array, " k"]:
    """No score is further from its bias than this; the scores themselves would take half a pass."""
    return jnp.matmul(jnp.abs(theta[:, :-1]), problem.extent, precision=HIGHEST)


def largest_change(
    problem: Problem, direction: Float[Array, "k m"], delta: Float[Array, "k n"]
) -> Float[Array, ""]:
    """The most that a direction, whose scores are ``delta``, changes a score; in row blocks a bound of it."""
    if problem.in_blocks:
        return jnp.max(reach_of(problem, direction) + jnp.abs(direction[:, -1]))
    return jnp.max(jnp.abs(delta))


def flat_features(problem: Problem) -> Bool[Array, " m"]:
    """Features (the bias among them) that may be shifted by one number in all classes without any change."""
    return jnp.all(problem.precision == 0, axis=0)


def has_flat_biases(problem: Problem) -> Bool[Array, ""]:
    """Whether all biases may be shifted by one number."""
    return jnp.all(problem.bias_precision == 0)


def has_flat_weights(problem: Problem) -> Bool[Array, ""]:
    """Whether the prior is flat on some weight: then no gap exists, and perhaps no finite optimum."""
    if problem.proper:
        return jnp.zeros((), bool)
    return jnp.any(problem.precision[:, :-1] == 0)


def centre(problem: Problem, theta: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """The best of the coefficients with the same probabilities.

    One number added to a feature in all classes changes the prior alone. It is chosen so that the precisions times the
    deviations from the mean sum to 0, as they do at every optimum; where the prior is flat, the coefficients.
    """
    total = jnp.sum(problem.precision, axis=0)
    deviation = jnp.sum(problem.precision * (theta - problem.mean), axis=0)
    shift = jnp.where(
        total > 0, deviation / jnp.where(total > 0, total, 1), jnp.mean(theta, axis=0)
    )
    return theta - shift[None, :]


def across_flat(problem: Problem, direction: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """A direction without its part along those on which nothing depends.

    Those are a shift of all classes, and what the prior leaves to an absent class alone: there rounding errors would
    be taken for steps, each for longer ones, and the scores drown in them.
    """
    nowhere = problem.absent[:, None] & (problem.precision == 0)
    direction = jnp.where(nowhere, 0, direction)
    mean = jnp.sum(direction, axis=0) / jnp.maximum(jnp.sum(~problem.absent), 1)
    common = jnp.where(flat_features(problem), mean, 0)
    return direction - jnp.where(nowhere, 0, common[None, :])


def scores_of(problem: Problem, theta: Float[Array, "k m"]) -> Float[Array, "k n"]:
    """Scores of a point: half a pass; nothing in row blocks. Absent classes are impossible ones."""
    if problem.in_blocks:
        return theta
    base = 0 if problem.base is None else problem.base
    return jnp.where(problem.absent[:, None], -jnp.inf, base + product(problem, theta))


def product(problem: Problem, theta: Float[Array, "k m"]) -> Float[Array, "k n"]:
    """theta X^T, the change of the scores along a direction: half a pass; nothing in row blocks."""
    if problem.in_blocks:
        return theta
    return jnp.matmul(theta, problem.features, precision=HIGHEST)


def shifted(
    problem: Problem, scores: Float[Array, "k n"], shift: Float[Array, " k"]
) -> Float[Array, "k n"]:
    """Scores after a change of the biases."""
    return scores.at[:, -1].add(shift) if problem.in_blocks else scores + shift[:, None]


def pull(problem: Problem, residual: Float[Array, "k n"]) -> Float[Array, "k m"]:
    """R X, a sum over the rows: half a pass; what a residual is already in row blocks."""
    if problem.in_blocks:
        return residual
    contracted = (((1,), (1,)), ((), ()))
    if residual.shape[0] * residual.dtype.itemsize < CACHE_LINE:
        return jax.lax.dot_general(residual, problem.features, contracted, precision=HIGHEST)
    # A CPU's library reorders all of the second factor in every product: the residual, as long as its classes fill the
    # vectors that they become. (The barrier is there because the compiler would undo a transpose in sight.)
    pulled = jax.lax.dot_general(problem.features, residual, contracted, precision=HIGHEST)
    return jax.lax.optimization_barrier(pulled).T


def sums_of(problem: Problem, residual: Float[Array, "k n"]) -> Float[Array, " k"]:
    """A residual summed over the rows: the gradient of the likelihood in the biases."""
    return residual[:, -1] if problem.in_blocks else jnp.sum(residual, axis=1)


def sum_over_blocks(problem: Problem, of_rows: Callable[[Problem], T]) -> T:
    """The sum of what ``of_rows`` finds in each block, which it is given as a problem whose rows are in no blocks."""

    def of_block(rows: tuple[Array, Array, Array]) -> T:
        features, labels, weights = rows
        return of_rows(replace(problem, features=features, labels=labels, weights=weights))

    return sum_of_blocks(of_block, (problem.features, problem.labels, problem.weights))


def penalty_of(problem: Problem, theta: Float[Array, "k m"]) -> Float[Array, ""]:
    """Half the sum of tau (theta - M)^2."""
    return 0.5 * jnp.sum(problem.precision * (theta - problem.mean) ** 2)


def gradient_of(
    problem: Problem, theta: Float[Array, "k m"], residual: Float[Array, "k n"]
) -> Float[Array, "k m"]:
    """R X + tau (theta - M)."""
    return pull(problem, residual) + problem.precision * (theta - problem.mean)
