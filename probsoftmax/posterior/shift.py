r"""From the mode to the mean: what a Gaussian at the optimum leaves out first.

A posterior of coefficients is skewed, and its mean is not at its mode. To the next order in 1 / n

.. math:: E[W] \approx \hat W - \tfrac12 H^{-1} \nabla \log\det H, \qquad
          \tfrac12 \nabla_{\eta_i} \log\det H = \tfrac{s_i}2 S_i\, (\mathrm{diag} A_i - 2 A_i p_i),

with the covariance :math:`A_i` of the scores of row i. In an average over the posterior this shift is of the same order
as the covariance itself: a prediction with one and without the other may be further off than the plug-in.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.likelihood import check_fit, without_absent_rows
from probsoftmax.numerics import softmax
from probsoftmax.posterior.coordinates import params_of, rows_of
from probsoftmax.posterior.gaussian import PosteriorT, map_rows
from probsoftmax.shapes import Array, Float


def shift_to_mean(posterior: PosteriorT, data: Data) -> PosteriorT:
    r"""The posterior around its mean, :math:`\hat W - \tfrac12 H^{-1} \nabla \log\det H`, instead of its mode.

    Predictions averaged over it are closer to those of Markov chain Monte Carlo: on iris at precision 1 they are 2e-5
    nats away, where those of the posterior at its mode are 1e-3 and the plug-in is 4e-4. The covariance stays. Where
    the classes are all but separated and the prior is weak, the mean is many standard deviations from the mode, and no
    expansion around the mode finds it.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``: at the mode.
        data: the n examples that it was fitted to.

    Returns:
        A posterior of the same kind.

    Raises:
        ValueError: shapes that do not fit together.

    References:
        Tierney, Kadane (1986), Accurate approximations for posterior moments and marginal densities.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> print(posterior.mean.weights.round(2), shift_to_mean(posterior, data).mean.weights.round(2))
    [[-0.30  0.30]] [[-0.41  0.41]]
    """
    check_fit(posterior.mean, data)
    return _shift(posterior, data)


@jax.jit
def _shift(posterior: PosteriorT, data: Data) -> PosteriorT:
    data = without_absent_rows(data)

    def slope_of_row(row: Float[Array, " m"], scores: Float[Array, " k"]) -> Float[Array, " k"]:
        p = softmax(scores)
        inner = posterior.score_variance(row) - 2 * posterior.score_covariance_times(row, p)
        return 0.5 * p * (inner - jnp.sum(p * inner))  # S (diag A - 2 A p) / 2

    slopes = data.weights[:, None] * map_rows(posterior, slope_of_row, data.features)
    rows = rows_of(posterior.coordinates, data.features)
    slope = jnp.matmul(slopes.T, rows, precision=HIGHEST)
    shift = params_of(posterior.coordinates, posterior.covariance_times(slope))
    mean = jax.tree.map(jnp.subtract, posterior.mean, shift)
    return replace(posterior, mean=mean)
