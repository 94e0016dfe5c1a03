r"""The objectives: Bayes' rule on the log scale, and the only minus signs.

.. math:: \log p(W, y \mid X) = \log p(y \mid X, W) + \log p(W)

Maximum likelihood minimises the first term negated, maximum a posteriori both; MLE is MAP with precision 0. The
support vector machine exchanges the likelihood for a hinge and keeps the penalty.
"""

import jax.numpy as jnp

from probsoftmax.data import Data
from probsoftmax.likelihood import (
    check_fit,
    log_likelihood,
    negative_log_likelihood,
    without_absent_rows,
)
from probsoftmax.linear import Params, logits
from probsoftmax.losses import weston_watkins_hinge
from probsoftmax.prior import GaussianPrior, log_prior, penalty
from probsoftmax.shapes import Array, Float


def log_joint(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, ""]:
    r"""Log of the joint density, :math:`\log p(y \mid X, W) + \log p(W)`, in nats.

    The unnormalised log-posterior: what a sampler wants. Normalised over W where the precision is positive.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.
        prior: precisions and mean.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(log_joint(init_params(1, 2), make_data([[1.0], [2.0]], [0, 1]), GaussianPrior()))
    -3.22417
    """
    return log_likelihood(params, data) + log_prior(params, prior)


def mle_objective(params: Params, data: Data) -> Float[Array, ""]:
    r"""What maximum likelihood minimises: :math:`-\log p(y \mid X, W)`, in nats.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(mle_objective(init_params(1, 2), make_data([[1.0], [2.0]], [0, 1])))
    1.3862944
    """
    return negative_log_likelihood(params, data)


def map_objective(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, ""]:
    r"""What maximum a posteriori minimises: :math:`-\log p(y \mid X, W) + \tfrac12 \sum \tau (W - M)^2`, in nats.

    :math:`-` :func:`log_joint` up to a constant of the prior, which is left out so that precision 0 gives exactly
    :func:`mle_objective`.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.
        prior: precisions and mean.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> params = Params(jnp.array([[1.0, -1.0]]), jnp.zeros(2))
    >>> print(map_objective(params, make_data([[1.0], [2.0]], [0, 1]), GaussianPrior(precision=2.0)))
    6.145078
    """
    return negative_log_likelihood(params, data) + penalty(params, prior)


def svm_objective(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, ""]:
    r"""What the multiclass support vector machine minimises, in margins.

    .. math:: \sum_i s_i \sum_{j \ne y_i} \max(0, \eta_{ij} - \eta_{i y_i} + 1) + \tfrac12 \sum \tau (W - M)^2

    The hinge in the place of the likelihood, the penalty that of :func:`map_objective`. Not minus the log of any
    probability: a margin, once reached, is worth no more.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples with integer labels.
        prior: precisions and mean; :math:`\tau = 2\lambda n` for a penalty :math:`\lambda\|W\|^2` on the mean hinge.

    Returns:
        A scalar, at least 0, in margins.

    Raises:
        ValueError: soft labels, for which a hinge is not defined; shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(svm_objective(init_params(1, 3), make_data([[1.0]], [1], num_classes=3), GaussianPrior()))
    2.0
    """
    if jnp.ndim(data.labels) != 1:
        raise ValueError(
            f"data.labels: expected classes of shape (n,) for a hinge, got {jnp.shape(data.labels)}"
        )
    check_fit(params, data)
    data = without_absent_rows(data)
    hinge = weston_watkins_hinge(logits(params, data.features), data.labels)
    return jnp.sum(data.weights * hinge) + penalty(params, prior)
