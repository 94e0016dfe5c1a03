r"""Predictions that know how little the coefficients are known: class probabilities averaged over the posterior,

.. math:: p(y \mid x, X, y) = \int \mathrm{softmax}(\tilde x^\top W)_y\; p(W \mid X, y)\, dW.

``predict_proba`` is the plug-in: the probabilities of the mean. Far from the data the average is less sure of itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probsoftmax.checks import check_floating, check_shape
from probsoftmax.linear import logits, predict_proba, shape_of
from probsoftmax.numerics import log_softmax, logsumexp, softmax, softmax_and_complement
from probsoftmax.posterior.gaussian import Posterior, map_rows, sample_one


@jax.jit
def predictive_probit(posterior: Posterior, features: Float[Array, "n d"]) -> Float[Array, "n k"]:
    r"""Class probabilities averaged over the posterior, approximately and without sampling.

    MacKay's approximation for two classes, an average of a sigmoid over a Gaussian of variance v, shrinks the log-odds
    by :math:`\sqrt{1 + \pi v / 8}`. Here each class has the log-odds against all the others,

    .. math::
        \ell_c = \log\frac{p_c}{1 - p_c}, \qquad
        v_c = \mathrm{Var}\Big[\eta_c - \sum_{j \ne c} \frac{p_j}{1 - p_c}\, \eta_j\Big], \qquad
        \tilde p_c \propto \sigma\Big(\frac{\ell_c}{\sqrt{1 + \pi v_c / 8}}\Big),

    with the variance of :math:`\ell_c`, linearised at the mean. It does not change with a shift of all scores, needs no
    covariance of classes to be formed, and with two classes is MacKay's formula, on the difference of their scores.
    Its divergence from the true average is a third to two thirds of that of scores shrunk one by one.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``.
        features: ``(n, d)``; rows are taken in blocks, so that nothing besides the result grows with n.

    Returns:
        ``(n, k)``, rows summing to 1 up to rounding. The plug-in where the posterior is narrow; equal probabilities
        where it is wide. NaN if there is no posterior.

    Raises:
        TypeError: features that are not real numbers.
        ValueError: features that are not ``(n, d)``.

    References:
        MacKay (1992), The evidence framework applied to classification networks.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> far = jnp.array([[2.0], [100.0]])
    >>> print((100 * predict_proba(posterior.mean, far)).round())
    [[ 43.  57.]
     [  0. 100.]]
    >>> print((100 * predictive_probit(posterior, far)).round())
    [[44. 56.]
     [23. 77.]]
    """

    def of_row(row: Float[Array, " m"], scores: Float[Array, " k"]) -> Float[Array, " k"]:
        log_odds, variance = _log_odds(posterior, row, scores)
        return softmax(jax.nn.log_sigmoid(log_odds * jax.lax.rsqrt(1 + jnp.pi / 8 * variance)))

    return map_rows(posterior, of_row, features)


def _log_odds(
    posterior: Posterior, row: Float[Array, " m"], scores: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Log-odds of each class against all the others at the mean, and their variances."""
    p, q = softmax_and_complement(scores, (0,))
    top = jnp.arange(scores.shape[0]) == jnp.argmax(scores)
    # Only one class can have all but a rounding of the probability, and be all that is left when it is taken away:
    # its log-odds and its variance are made of the others alone.
    others = softmax(scores, where=~top)
    contrast = jnp.where(top, 1, 0) - others
    log_odds = jnp.where(
        top, scores - logsumexp(scores, where=~top), log_softmax(scores) - jnp.log(q)
    )
    # (e_c - p)^T A (e_c - p) / q_c^2
    along = posterior.score_covariance_times(row, p)
    variance = posterior.score_variance(row) - 2 * along + jnp.sum(p * along)
    of_top = jnp.sum(contrast * posterior.score_covariance_times(row, contrast))
    variance = jnp.where(top, of_top, variance / jnp.where(top, 1, q) ** 2)
    return log_odds, jnp.maximum(variance, 0)


@partial(jax.jit, static_argnames="num_samples")
def predictive_monte_carlo(
    posterior: Posterior, features: Float[Array, "n d"], key: PRNGKeyArray, num_samples: int
) -> Float[Array, "n k"]:
    r"""Class probabilities averaged over samples, :math:`\tfrac1S \sum_s \mathrm{softmax}(X W_s + b_s)`.

    Unbiased for the average over the Gaussian; an entry p is off by at most :math:`\sqrt{p (1 - p) / S}`, one standard
    error. All rows see the same samples.

    Args:
        posterior: by ``laplace``, ``laplace_kronecker`` or ``laplace_diagonal``.
        features: ``(n, d)``.
        key: a random key.
        num_samples: S; one is held at a time.

    Returns:
        ``(n, k)``, rows summing to 1 up to rounding. NaN if there is no posterior.

    Raises:
        TypeError: features that are not real numbers.
        ValueError: features that are not ``(n, d)``; no samples.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> from probsoftmax.posterior.full import laplace
    >>> from probsoftmax.prior import GaussianPrior
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace(fit_map(data, prior).params, data, prior)
    >>> p = predictive_monte_carlo(posterior, jnp.array([[100.0]]), jax.random.key(0), 10_000)
    >>> print((10 * p).round())
    [[2. 8.]]
    """
    d, k = shape_of(posterior.mean)
    check_floating("features", features)
    check_shape("features", features, (None, d), "(examples, features)")
    if num_samples < 1:
        raise ValueError(f"num_samples: expected a number >= 1, got {num_samples}")

    def add(total: Float[Array, "n k"], key: PRNGKeyArray) -> tuple[Float[Array, "n k"], None]:
        return total + predict_proba(sample_one(posterior, key), features), None

    shape = jax.eval_shape(logits, posterior.mean, features)
    start = jnp.zeros(shape.shape, shape.dtype)
    total, _ = jax.lax.scan(add, start, jax.random.split(key, num_samples))
    return total / num_samples
