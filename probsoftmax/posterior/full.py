r"""The Laplace approximation with the whole Hessian: :math:`p(W \mid X, y) \approx N(\hat W, H^{-1})`.

The model is linear in its coefficients, so the Hessian is the Gauss-Newton matrix and the Fisher information too.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.posterior.coordinates import log_volume, without_shifts
from probsoftmax.posterior.gaussian import Posterior
from probsoftmax.posterior.mode import Mode, find_mode, raise_if, trouble_of
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float, Int
from probsoftmax.solvers.lapack import inverse_of_triangle, solve_transposed
from probsoftmax.solvers.newton import dense_hessian
from probsoftmax.solvers.semidefinite import factorise_exactly


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullPosterior(Posterior):
    """A Gaussian with every covariance, from the inverse of the Cholesky factor of its precision matrix."""

    inverse_root: Float[Array, "km km"]
    """R, lower triangular, with the covariance R^T R up to shifts of all classes."""

    @property
    def numbers_per_row(self) -> int:
        """The scores' part of the root: k columns."""
        km, k = self.inverse_root.shape[0], self.mean.bias.shape[0]
        return km * k

    def colour(self, noise: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """R^T noise."""
        deviation = jnp.matmul(noise.reshape(-1), self.inverse_root, precision=HIGHEST)
        return without_shifts(self.coordinates, deviation.reshape(self._shape))

    def squared_distance(self, deviation: Float[Array, "k m"]) -> Float[Array, ""]:
        """The square of R^-T times the deviation, which has no part along the shifts."""
        white = solve_transposed(self.inverse_root, deviation.reshape(-1))
        return jnp.sum(white * white)

    def covariance_times(self, slope: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """R^T (R g)."""
        return self.colour(jnp.matmul(self.inverse_root, slope.reshape(-1), precision=HIGHEST))

    def variances(self) -> Float[Array, "k m"]:
        """Sums of squares of the columns of R."""
        return jnp.sum(self._columns() ** 2, axis=0)

    def score_covariance(self, row: Float[Array, " m"]) -> Float[Array, "k k"]:
        """(R X)^T (R X)."""
        root = self._root_of_scores(row)
        return jnp.matmul(root.T, root, precision=HIGHEST)

    def score_variance(self, row: Float[Array, " m"]) -> Float[Array, " k"]:
        """Sums of squares of the columns of R X."""
        return jnp.sum(self._root_of_scores(row) ** 2, axis=0)

    def score_covariance_times(
        self, row: Float[Array, " m"], vector: Float[Array, " k"]
    ) -> Float[Array, " k"]:
        """(R X)^T ((R X) v)."""
        root = self._root_of_scores(row)
        return jnp.matmul(root.T, jnp.matmul(root, vector, precision=HIGHEST), precision=HIGHEST)

    def _columns(self) -> Float[Array, "km k m"]:
        k, m = self._shape
        return without_shifts(self.coordinates, self.inverse_root.reshape(k * m, k, m))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.mean.bias.shape[0], self.coordinates.flat.shape[0]

    def _root_of_scores(self, row: Float[Array, " m"]) -> Float[Array, "km k"]:
        root = jnp.matmul(self._columns(), row, precision=HIGHEST)
        return root - jnp.mean(root, axis=1, keepdims=True)


def laplace(params: Params, data: Data, prior: GaussianPrior) -> FullPosterior:
    r"""Laplace approximation of the posterior: a Gaussian at the fit with the inverse Hessian as its covariance.

    Costs one Hessian and one inversion of its Cholesky factor, :math:`n (kd)^2 + (kd)^3` multiplications, and memory
    for :math:`(kd)^2` numbers: 512 MB for 8000 coefficients in float64. ``laplace_kronecker`` is for more.

    Where the prior is flat on a feature in all classes (the bias by default; every feature for ``fit_mle``) the shift
    of all its coefficients is not determined by anything. The posterior is that of the class-centred coefficients: the
    pseudo-inverse, without a ridge.

    Args:
        params: the optimum, by ``fit_map`` or ``fit_mle``.
        data: the n examples it was fitted to.
        prior: the prior it was fitted under; precision 0 for maximum likelihood.

    Returns:
        A posterior. NaN in everything it gives, when traced, where there is none: coefficients that are no optimum
        (those of a separated fit are none), a class without examples and with a flat bias, collinear features with a
        flat prior.

    Raises:
        ValueError: shapes that do not fit together; with values, no posterior: the message says what to change.

    References:
        MacKay (1992), The evidence framework applied to classification networks.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> print(posterior.mean.weights.round(2))
    [[-0.3  0.3]]
    """
    posterior, trouble = _laplace(params, data, GaussianPrior(*map(jnp.asarray, prior)))
    raise_if(trouble)
    return posterior


@jax.jit
def _laplace(
    params: Params, data: Data, prior: GaussianPrior
) -> tuple[FullPosterior, Int[Array, ""]]:
    params, mode = find_mode(params, data, prior)
    matrix = dense_hessian(mode.problem, mode.scores)
    root, lower, singular = factorise_exactly(matrix)
    inverse = inverse_of_triangle(lower) * root[None, :]
    white = jnp.matmul(inverse, mode.slope.reshape(-1), precision=HIGHEST)
    trouble = trouble_of(mode, 0.5 * jnp.sum(white * white), singular)
    valid = trouble == 0
    whole = log_determinant_of_root(root, lower)
    log_determinant = log_determinant_on_centred(mode, matrix, whole)
    log_determinant = jnp.where(valid, log_determinant, jnp.nan)
    inverse = jnp.where(valid, inverse, jnp.nan)
    return FullPosterior(params, mode.coordinates, log_determinant, inverse), trouble


def log_determinant_of_root(
    root: Float[Array, " m"], lower: Float[Array, "m m"]
) -> Float[Array, ""]:
    """Log-determinant of M from D M D = L L^T."""
    return 2 * (jnp.sum(jnp.log(jnp.diagonal(lower))) - jnp.sum(jnp.log(root)))


def log_determinant_on_centred(
    mode: Mode, matrix: Float[Array, "km km"], whole: Float[Array, ""]
) -> Float[Array, ""]:
    """That of the Hessian, in the caller's units, on the space that the posterior lives on.

    Args:
        mode: the mode.
        matrix: ``dense_hessian`` at it.
        whole: its log-determinant.
    """
    ridge = _log_ridge(mode, matrix)
    return whole - ridge - 2 * log_volume(mode.coordinates, mode.problem.shape[0])


def _log_ridge(mode: Mode, matrix: Float[Array, "km km"]) -> Float[Array, ""]:
    r"""What the ridges along the shifts of flat features add to the log-determinant of ``dense_hessian``.

    Such a shift is an eigenvector, whose eigenvalue is the ridge :math:`k \rho` alone, with :math:`\rho` the mean
    diagonal over k: with the ridge on it that mean is :math:`k \rho + \rho`.
    """
    k, m = mode.problem.shape
    mean = jnp.mean(jnp.diagonal(matrix).reshape(k, m), axis=0)
    eigenvalues = jnp.where(mode.coordinates.flat, mean * k / (k + 1), 1)
    return jnp.sum(jnp.log(eigenvalues))
