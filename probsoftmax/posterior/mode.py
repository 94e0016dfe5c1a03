r"""The mode that a posterior is built around, and whether there is a posterior at all.

A Gaussian around a point that is no optimum, or with a curvature that is zero somewhere, is not an approximation of
anything. Traced code says so by NaN in everything that the posterior gives; called with values, the functions of this
folder raise a ``ValueError`` that says what to change.
"""

from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.likelihood import check_fit
from probsoftmax.linear import Params, logits
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.posterior.coordinates import Coordinates
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.problem import (
    Problem,
    flat_features,
    gradient_of,
    make_problem,
    scores_of,
    to_theta,
)
from probsoftmax.solvers.rows import evaluate

ASTRAY = 0.1
"""Standard deviations by which coefficients may be off the optimum, in the mean over them."""


class Trouble(IntEnum):
    """Why there is no posterior."""

    NONE = 0
    ABSENT_CLASS = 1
    NO_OPTIMUM = 2
    SINGULAR = 3
    PARTLY_FLAT = 4


ADVICE = {
    Trouble.ABSENT_CLASS: (
        "data: expected an example of every class, as the prior is flat on the biases and says nothing of a class that "
        "nobody has; give them a prior, GaussianPrior(bias_precision=1.0), or leave the class out"
    ),
    Trouble.NO_OPTIMUM: (
        "params: expected the optimum of these data under this prior, got coefficients off it by more than "
        f"{ASTRAY} standard deviations; use fit_map(data, prior).params (a separated fit by fit_mle has no optimum: "
        "give it a prior)"
    ),
    Trouble.SINGULAR: (
        "prior: expected a curvature in every direction, got features that are collinear to the precision of the "
        "dtype while the prior on them is flat or nearly so; raise prior.precision, drop features, or use float64"
    ),
    Trouble.PARTLY_FLAT: (
        "prior.precision: expected a prior that is positive on all features or flat on all of them, as the axes of a "
        "Kronecker posterior mix them; use laplace, or a positive precision"
    ),
}


class Mode(NamedTuple):
    """The coefficients around which the posterior is expanded, and what the expansion is made of."""

    problem: Problem
    """Its features are centred where most of the curvature is, if the bias is flat."""
    coordinates: Coordinates
    scores: Float[Array, "k n"]
    slope: Float[Array, "k m"]
    """The gradient: 0 at an optimum."""


def find_mode(params: Params, data: Data, prior: GaussianPrior) -> tuple[Params, Mode]:
    """The mode, in the dtype of its scores, and its expansion."""
    check_fit(params, data)
    dtype = jax.eval_shape(logits, params, data.features).dtype
    params = Params(*(part.astype(dtype) for part in params))
    problem = make_problem(data, prior, params, standardise=True)
    theta = to_theta(problem, params)
    scores = scores_of(problem, theta)
    slope = gradient_of(problem, theta, evaluate(problem, scores).residual)
    flat = flat_features(problem)
    problem, slope = _centre(problem, scores, slope, flat[-1])
    return params, Mode(problem, Coordinates(problem.scale, problem.offset, flat), scores, slope)


def _centre(
    problem: Problem,
    scores: Float[Array, "k n"],
    slope: Float[Array, "k m"],
    flat_bias: Bool[Array, ""],
) -> tuple[Problem, Float[Array, "k m"]]:
    r"""The same problem, with features centred by their curvature :math:`s_i\,\mathrm{tr}\,S_i` where the bias is flat.

    The weights of the coefficients then have as little to do with the bias as can be: nothing at all for two classes.
    """
    p, q = softmax_and_complement(scores, (0,))
    curvature = problem.weights * jnp.sum(p * q, axis=0)
    total = jnp.sum(curvature)
    mean = jnp.matmul(problem.features[:-1], curvature, precision=HIGHEST)
    mean = jnp.where(flat_bias & (total > 0), mean / jnp.where(total > 0, total, 1), 0)
    mean = jax.lax.stop_gradient(mean)  # another number would serve as well
    features = problem.features.at[:-1].add(-mean[:, None])
    slope = slope.at[:, :-1].add(-slope[:, -1:] * mean[None, :])
    return replace(problem, features=features, offset=problem.offset + mean), slope


def trouble_of(
    mode: Mode, decrement: Float[Array, ""], singular: Bool[Array, ""]
) -> Int[Array, ""]:
    r"""The first of the reasons why there is no posterior, or none.

    Args:
        mode: the mode.
        decrement: half of :math:`\nabla^\top H^{-1} \nabla`: each coefficient that is off by one standard deviation
            adds one half.
        singular: whether the curvature is 0 somewhere.
    """
    k, m = mode.problem.shape
    astray = ~(decrement <= 0.5 * ASTRAY**2 * k * m)
    trouble = jnp.where(astray, Trouble.NO_OPTIMUM, Trouble.NONE)
    trouble = jnp.where(singular, Trouble.SINGULAR, trouble)
    return jnp.where(jnp.any(mode.problem.absent), Trouble.ABSENT_CLASS, trouble)


def raise_if(trouble: Int[Array, ""]) -> None:
    """``ValueError`` for a trouble that has a value; a traced one stays the NaN that it is."""
    if not isinstance(trouble, jax.core.Tracer) and trouble != Trouble.NONE:
        raise ValueError(ADVICE[Trouble(int(trouble))])
