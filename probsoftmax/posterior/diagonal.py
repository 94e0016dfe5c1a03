r"""The Laplace approximation without covariances: the diagonal of the Hessian alone.

The cheapest posterior and the coarsest. It knows nothing of what features share, and, what is worse for a softmax,
nothing of the coupling of classes: with two of them it has the variance of their difference twice too large.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.posterior.coordinates import log_volume
from probsoftmax.posterior.gaussian import Posterior
from probsoftmax.posterior.mode import find_mode, raise_if, trouble_of
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalPosterior(Posterior):
    """Independent Gaussians on the coefficients; where the prior is flat, given that they sum to 0 over the classes."""

    precision: Float[Array, "k m"]
    """h: the diagonal of the Hessian in the coordinates of the centred and scaled features."""

    @property
    def numbers_per_row(self) -> int:
        """The shares of the flat features, one for each coefficient."""
        k, m = self.precision.shape
        return 2 * k * m

    def colour(self, noise: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """Noise / sqrt(h), less what keeps a flat feature from summing to 0: its draw given that it does."""
        deviation = noise / jnp.sqrt(self.precision)
        variance = 1 / self.precision
        total = jnp.sum(deviation, axis=0) / jnp.sum(variance, axis=0)
        return deviation - jnp.where(self.coordinates.flat, total, 0)[None, :] * variance

    def squared_distance(self, deviation: Float[Array, "k m"]) -> Float[Array, ""]:
        """Sum of h times the squares."""
        return jnp.sum(self.precision * deviation * deviation)

    def covariance_times(self, slope: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """Slope / h, less its part along the shares."""
        shares = self._shares()
        return slope / self.precision - shares * jnp.sum(shares * slope, axis=0)[None, :]

    def variances(self) -> Float[Array, "k m"]:
        """1 / h, less the share that a sum of 0 takes away."""
        return 1 / self.precision - self._shares() ** 2

    def score_covariance(self, row: Float[Array, " m"]) -> Float[Array, "k k"]:
        """Sum over the features of x^2 times the covariance of its coefficients, class-centred."""
        return jax.vmap(lambda axis: self.score_covariance_times(row, axis))(
            jnp.eye(self.precision.shape[0], dtype=row.dtype)
        )

    def score_variance(self, row: Float[Array, " m"]) -> Float[Array, " k"]:
        """Sum over the features of x^2 times the variance of its coefficients, class-centred."""
        variance, shares = self._of_scores(row)
        mean = (variance - jnp.matmul(shares, jnp.sum(shares, axis=0))) / variance.shape[0]
        return variance - jnp.sum(shares**2, axis=1) - 2 * mean + jnp.mean(mean)

    def score_covariance_times(
        self, row: Float[Array, " m"], vector: Float[Array, " k"]
    ) -> Float[Array, " k"]:
        """The same, times a vector."""
        variance, shares = self._of_scores(row)
        centred = vector - jnp.mean(vector)
        within = jnp.matmul(centred, shares, precision=HIGHEST)
        product = variance * centred - jnp.matmul(shares, within, precision=HIGHEST)
        return product - jnp.mean(product)

    def _of_scores(self, row: Float[Array, " m"]) -> tuple[Float[Array, " k"], Float[Array, "k m"]]:
        """v and C with the covariance diag(v) - C C^T of the scores."""
        variance = jnp.matmul(1 / self.precision, row**2, precision=HIGHEST)
        return variance, self._shares() * row[None, :]

    def _shares(self) -> Float[Array, "k m"]:
        """c with the covariance diag(1 / h) - c c^T of a flat feature's coefficients."""
        variance = 1 / self.precision
        share = variance * jax.lax.rsqrt(jnp.sum(variance, axis=0))[None, :]
        return jnp.where(self.coordinates.flat[None, :], share, 0)


def laplace_diagonal(params: Params, data: Data, prior: GaussianPrior) -> DiagonalPosterior:
    r"""Laplace approximation of the posterior with the diagonal of the Hessian,

    .. math:: h_{jc} = \sum_i s_i\, p_{ic} (1 - p_{ic})\, x_{ij}^2 + \tau_{jc}.

    Where the bias is flat, the features are measured from their mean (weighted by the curvature of each row), so that
    slopes and biases are as independent as they can be, and a shift of the features changes no prediction.

    Args:
        params: the optimum, by ``fit_map`` or ``fit_mle``.
        data: the n examples it was fitted to.
        prior: the prior it was fitted under; precision 0 for maximum likelihood.

    Returns:
        A posterior, class-centred where the prior is flat and NaN when traced where there is none, as by ``laplace``.
        It does not see that features are collinear.

    Raises:
        ValueError: shapes that do not fit together; with values, no posterior: the message says what to change.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> print(laplace_diagonal(fit_map(data, prior).params, data, prior).log_determinant.round(4))
    1.3316
    """
    posterior, trouble = _laplace(params, data, GaussianPrior(*map(jnp.asarray, prior)))
    raise_if(trouble)
    return posterior


@jax.jit
def _laplace(
    params: Params, data: Data, prior: GaussianPrior
) -> tuple[DiagonalPosterior, Int[Array, ""]]:
    params, mode = find_mode(params, data, prior)
    problem, k = mode.problem, mode.problem.shape[0]
    p, q = softmax_and_complement(mode.scores, (0,))
    curvature = problem.weights[None, :] * p * q
    squares = jnp.matmul(curvature, (problem.features**2).T, precision=HIGHEST)
    precision = squares + problem.precision
    decrement = 0.5 * jnp.sum(mode.slope**2 / jnp.where(precision > 0, precision, 1))
    trouble = trouble_of(mode, decrement, ~jnp.all(precision > 0))
    # Given that a flat feature sums to 0: det(N^T diag(h) N) = prod(h) sum(1 / h) / k for the N that spans such sums.
    given = jnp.log(jnp.mean(1 / precision, axis=0))
    log_determinant = (
        jnp.sum(jnp.log(precision))
        + jnp.sum(jnp.where(mode.coordinates.flat, given, 0))
        - 2 * log_volume(mode.coordinates, k)
    )
    valid = trouble == 0
    posterior = DiagonalPosterior(
        params,
        mode.coordinates,
        jnp.where(valid, log_determinant, jnp.nan),
        jnp.where(valid, precision, jnp.nan),
    )
    return posterior, trouble
