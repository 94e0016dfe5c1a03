r"""What every Gaussian posterior can do, whatever it knows of its covariance.

A posterior is a mean and the covariance of the coefficients around it. What is asked of it is asked row by row: with
:math:`\tilde X = I_k \otimes \tilde x` the scores at x have the covariance :math:`\tilde X^\top \Sigma \tilde X`, whose
entries, diagonal and products are sums over the factors of :math:`\Sigma`. No Jacobian is formed. A shift of all scores
of a row, on which no probability depends, may vary without bound where the prior is weak; so scores are always those
less their mean over the classes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.checks import check_floating, check_shape
from probsoftmax.linear import Params, logits, shape_of
from probsoftmax.posterior.coordinates import Coordinates, deviation_of, params_of, rank, rows_of
from probsoftmax.shapes import Array, Float, PRNGKeyArray

BLOCK = 1 << 22
"""Numbers an array may hold for the rows that are worked on together, unless one row needs more."""


PosteriorT = TypeVar("PosteriorT", bound="Posterior")


@dataclass(frozen=True)
class Posterior(ABC):
    """A Gaussian on the coefficients: a pytree of arrays, made by ``laplace`` and its kin.

    Where the prior is flat on the bias it lives on the biases that sum to 0 over the classes. NaN throughout if there
    is no posterior (see ``laplace``).
    """

    mean: Params
    """The coefficients it was built around."""
    coordinates: Coordinates
    """The centred and scaled features that everything else is about."""
    log_determinant: Float[Array, ""]
    """Log-determinant of the precision matrix on the space it lives on, in the caller's units."""

    @property
    @abstractmethod
    def numbers_per_row(self) -> int:
        """About how many numbers are held to work on one row of features."""

    @abstractmethod
    def colour(self, noise: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """A deviation from the mean with the covariance of the posterior, out of independent standard normals."""

    @abstractmethod
    def squared_distance(self, deviation: Float[Array, "k m"]) -> Float[Array, ""]:
        """In squares of standard deviations."""

    @abstractmethod
    def covariance_times(self, slope: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """The covariance times a gradient, which has no part along what means nothing."""

    @abstractmethod
    def variances(self) -> Float[Array, "k m"]:
        """Of each coefficient in its own coordinates."""

    @abstractmethod
    def score_covariance(self, row: Float[Array, " m"]) -> Float[Array, "k k"]:
        """Of the class-centred scores of one row."""

    @abstractmethod
    def score_variance(self, row: Float[Array, " m"]) -> Float[Array, " k"]:
        """The diagonal of ``score_covariance``."""

    @abstractmethod
    def score_covariance_times(
        self, row: Float[Array, " m"], vector: Float[Array, " k"]
    ) -> Float[Array, " k"]:
        """``score_covariance`` times a vector."""


@partial(jax.jit, static_argnames="num_samples")
def sample(posterior: Posterior, key: PRNGKeyArray, num_samples: int) -> Params:
    """Draws coefficients from a posterior.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``.
        key: a random key.
        num_samples: how many.

    Returns:
        Params with a leading axis: weights ``(num_samples, d, k)`` and bias ``(num_samples, k)``. Where the prior is
        flat on the bias, every sampled bias sums to 0. NaN if there is no posterior.

    >>> import jax
    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> sample(laplace(fit_map(data, prior).params, data, prior), jax.random.key(0), 5).weights.shape
    (5, 1, 2)
    """
    return jax.vmap(lambda key: sample_one(posterior, key))(jax.random.split(key, num_samples))


def sample_one(posterior: Posterior, key: PRNGKeyArray) -> Params:
    """One draw, without the leading axis."""
    d, k = shape_of(posterior.mean)
    noise = jax.random.normal(key, (k, d + 1), posterior.mean.weights.dtype)
    deviation = params_of(posterior.coordinates, posterior.colour(noise))
    return jax.tree.map(jnp.add, posterior.mean, deviation)


def log_density(posterior: Posterior, params: Params) -> Float[Array, ""]:
    r"""Log-density of some coefficients, in nats,

    .. math:: -\tfrac12 \left[r \log 2\pi - \log\det \Lambda + (w - \hat w)^\top \Lambda (w - \hat w)\right].

    Args:
        posterior: with r dimensions and precision matrix Lambda.
        params: weights ``(d, k)`` and bias ``(k,)``.

    Returns:
        A scalar, in nats. Where the prior is flat on the bias, the density is with respect to Lebesgue measure on the
        class-centred biases, r is one less than the number of coefficients, and a shift of all biases changes nothing.

    Raises:
        ValueError: coefficients of another shape.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> print(log_density(posterior, posterior.mean).round(4))
    -1.8966
    """
    d, k = shape_of(posterior.mean)
    check_shape("params.weights", params.weights, (d, k), "(features, classes)")
    check_shape("params.bias", params.bias, (k,), "(classes)")
    difference = jax.tree.map(jnp.subtract, params, posterior.mean)
    deviation = deviation_of(posterior.coordinates, difference)
    return -0.5 * (
        rank(posterior.coordinates, k) * math.log(2 * math.pi)
        - posterior.log_determinant
        + posterior.squared_distance(deviation)
    )


@jax.jit
def marginal_variances(posterior: Posterior) -> Params:
    """Variance of each coefficient.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``.

    Returns:
        Params of variances, ``(d, k)`` and ``(k,)``, in squared units of the coefficients. Those of a flat bias are of
        biases that sum to 0.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> print(marginal_variances(laplace(fit_map(data, prior).params, data, prior)).weights.round(3))
    [[0.661 0.661]]
    """
    coordinates, variances = posterior.coordinates, posterior.variances()
    # A flat bias: the class-centred scores where every feature is 0. With a prior it was not mixed with anything.
    nothing = rows_of(coordinates, jnp.zeros_like(coordinates.scale)[None, :])[0]
    centred = posterior.score_variance(nothing)
    bias = jnp.where(coordinates.flat[-1], centred, variances[:, -1])
    return Params(variances[:, :-1].T * coordinates.scale[:, None] ** 2, bias)


def logit_covariance(posterior: Posterior, features: Float[Array, "n d"]) -> Float[Array, "n k k"]:
    r"""Covariance :math:`\tilde X^\top \Sigma \tilde X` of the scores of each row, less their mean over the classes.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``.
        features: ``(n, d)``.

    Returns:
        ``(n, k, k)``, in squared nats; rows and columns sum to 0. Differences of scores, on which alone probabilities
        depend, have the variances that these say.

    Raises:
        TypeError: features that are not real numbers.
        ValueError: features that are not ``(n, d)``.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> print(logit_covariance(posterior, jnp.array([[1.5]]))[0].round(2))
    [[ 0.28 -0.28]
     [-0.28  0.28]]
    """
    _, k = shape_of(posterior.mean)
    return map_rows(posterior, lambda row, _: posterior.score_covariance(row), features, k * k)


def map_rows(
    posterior: Posterior,
    function: Callable[[Float[Array, " m"], Float[Array, " k"]], Array],
    features: Float[Array, "n d"],
    size: int = 0,
) -> Array:
    """``function`` of every row in the posterior's coordinates, so many at a time that they are not too much to hold.

    Args:
        posterior: whose coordinates they are.
        function: of one row in those coordinates, and its scores by the mean of the posterior.
        features: n rows in the caller's units.
        size: numbers that the function holds for a row, besides those of the posterior.
    """
    d, _ = shape_of(posterior.mean)
    check_floating("features", features)
    check_shape("features", features, (None, d), "(examples, features)")
    features = jnp.asarray(features)
    together = max(1, min(features.shape[0], BLOCK // (posterior.numbers_per_row + size)))

    def of_row(x: Float[Array, " d"]) -> Array:
        row = rows_of(posterior.coordinates, x[None, :])[0]
        return function(row, logits(posterior.mean, x))

    return jax.lax.map(of_row, features, batch_size=together)
