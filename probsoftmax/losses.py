r"""Losses of one example: scores and a label in, nats (or margins) out.

The cross-entropies are negative log-likelihoods read off the scores directly: Caffe's fused 'softmax-loss' layer
and not its 'softmax' layer followed by a logarithm, which has nothing left to take the logarithm of once a
probability has rounded to 0 or 1. The hinges belong to the support vector machine, for comparison.

Every function maps over the leading axes, class axis last, and reduces nothing: ``(..., k)`` scores give ``(...)``
losses. A label outside 0..k-1, which traced code cannot refuse, makes value and gradient NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probsoftmax.checks import check_floating, check_integer, check_shape
from probsoftmax.numerics import (
    compute_dtype,
    log_softmax,
    sigmoid_and_complement,
    softmax_and_complement,
    softplus,
    sum_of_others,
)


def softmax_cross_entropy_with_integer_labels(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> Float[Array, "*b"]:
    r"""Negative log-likelihood of a class, :math:`-\log p_y = \log\sum_j e^{\eta_j} - \eta_y`, in nats.

    The gradient is :math:`p_j` at the other classes and :math:`-\sum_{j \ne y} p_j` at the label, to a few ulp each.

    Args:
        logits: scores ``(..., k)``.
        labels: classes 0..k-1, ``(...)``.

    Returns:
        Losses ``(...)``; relative error of a few ulp down to underflow. +inf for a label whose score is -inf. NaN,
        with a NaN gradient, for a label outside 0..k-1 (-1 is not the last class).

    Raises:
        TypeError: labels that are not integers, logits that are not real numbers.
        ValueError: shapes that do not match exactly; nothing is broadcast.

    >>> import jax.numpy as jnp
    >>> print(softmax_cross_entropy_with_integer_labels(jnp.array([[2.0, 0.0], [40.0, 0.0]]), jnp.array([0, 0])))
    [1.269280e-01 4.248354e-18]
    """
    logits, dtype = _prepare(logits)
    check_integer("labels", labels)
    check_shape("labels", labels, logits.shape[:-1], "(the leading axes of logits)")
    return _integer_cross_entropy(logits, jnp.asarray(labels)).astype(dtype)


@jax.custom_jvp
def _integer_cross_entropy(logits, labels):
    at_label, valid = _locate(labels, logits.shape)
    # A sum with one term, so a class axis that is sharded or tiny costs no gather.
    value = -jnp.sum(jnp.where(at_label, log_softmax(logits), 0), axis=-1)
    return jnp.where(valid, value, jnp.nan)


@_integer_cross_entropy.defjvp
def _integer_cross_entropy_jvp(primals, tangents):
    (logits, labels), (dlogits, _) = primals, tangents
    at_label, valid = _locate(labels, logits.shape)
    p, q = softmax_and_complement(logits, (logits.ndim - 1,))
    gradient = jnp.where(at_label, -q, p)
    gradient = jnp.where(valid[..., None], gradient, jnp.nan)
    return _integer_cross_entropy(logits, labels), jnp.sum(gradient * dlogits, axis=-1)


def softmax_cross_entropy(
    logits: Float[Array, "*b k"], labels: Float[Array, "*b k"]
) -> Float[Array, "*b"]:
    r"""Cross-entropy of label probabilities and scores, :math:`-\sum_j y_j \log p_j`, in nats.

    The gradient :math:`p_j \sum_l y_l - y_j` is formed as :math:`p_j \sum_{l \ne j} y_l - y_j q_j`, which for a
    one-hot row is the exact gradient of the integer form.

    Args:
        logits: scores ``(..., k)``.
        labels: probabilities ``(..., k)``. A row that sums to c counts c times; ``make_data`` refuses such rows.

    Returns:
        Losses ``(...)``. A class with label 0 counts nothing even where its score is -inf.

    Raises:
        TypeError: arguments that are not real numbers.
        ValueError: shapes that differ; nothing is broadcast.

    >>> import jax.numpy as jnp
    >>> print(softmax_cross_entropy(jnp.array([2.0, 0.0]), jnp.array([0.9, 0.1])))
    0.326928
    """
    logits, dtype = _prepare(logits)
    check_floating("labels", labels)
    check_shape("labels", labels, logits.shape, "(that of logits)")
    return _soft_cross_entropy(logits, jnp.asarray(labels, logits.dtype)).astype(dtype)


@jax.custom_jvp
def _soft_cross_entropy(logits, labels):
    return -jnp.sum(labels * _log_p_where_it_counts(logits, labels), axis=-1)


@_soft_cross_entropy.defjvp
def _soft_cross_entropy_jvp(primals, tangents):
    (logits, labels), (dlogits, dlabels) = primals, tangents
    classes = (logits.ndim - 1,)
    p, q = softmax_and_complement(logits, classes)
    dominant = labels == jnp.max(labels, axis=-1, keepdims=True)
    gradient = p * sum_of_others(labels, dominant, classes) - labels * q
    log_p = _log_p_where_it_counts(logits, labels)
    tangent = jnp.sum(gradient * dlogits, axis=-1) - jnp.sum(log_p * dlabels, axis=-1)
    return _soft_cross_entropy(logits, labels), tangent


def _log_p_where_it_counts(logits, labels):
    """log p, and 0 at an impossible class that the label does not ask for: 0 log 0 = 0."""
    log_p = log_softmax(logits)
    return jnp.where((labels == 0) & (log_p == -jnp.inf), 0, log_p)


def sigmoid_binary_cross_entropy(
    logits: Float[Array, "*b"], labels: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    r"""Cross-entropy of one neuron, :math:`-y\log\sigma(\eta) - (1-y)\log\sigma(-\eta)`, in nats.

    Softmax of two classes with the scores :math:`[\eta, 0]` is the same model.

    Args:
        logits: scores of the positive class, any shape.
        labels: probabilities of the positive class, the same shape (0/1 integers pass).

    Returns:
        Losses, the shape of ``logits``; relative error of a few ulp down to underflow.

    Raises:
        TypeError: arguments that are not real numbers.
        ValueError: shapes that differ; nothing is broadcast.

    >>> import jax.numpy as jnp
    >>> print(sigmoid_binary_cross_entropy(jnp.array([40.0, -3.0]), jnp.array([1, 0])))
    [4.2483541e-18 4.8587352e-02]
    """
    logits, dtype = _prepare(logits)
    check_floating("labels", labels)
    check_shape("labels", labels, logits.shape, "(that of logits)")
    return _sigmoid_cross_entropy(logits, jnp.asarray(labels, logits.dtype)).astype(dtype)


@jax.custom_jvp
def _sigmoid_cross_entropy(logits, labels):
    # A label of exactly 0 or 1 leaves the other term out, so that an infinite score on its side costs nothing.
    positive = jnp.where(labels == 0, 0, labels * softplus(-logits))
    negative = jnp.where(labels == 1, 0, (1 - labels) * softplus(logits))
    return positive + negative


@_sigmoid_cross_entropy.defjvp
def _sigmoid_cross_entropy_jvp(primals, tangents):
    (logits, labels), (dlogits, dlabels) = primals, tangents
    p, q = sigmoid_and_complement(logits)
    tangent = ((1 - labels) * p - labels * q) * dlogits - logits * dlabels
    return _sigmoid_cross_entropy(logits, labels), tangent


def weston_watkins_hinge(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"], margin: float = 1.0
) -> Float[Array, "*b"]:
    r"""Multiclass hinge summed over the other classes, :math:`\sum_{j \ne y} \max(0, \eta_j - \eta_y + \Delta)`.

    The SVM of the CS231n course note.

    Args:
        logits: scores ``(..., k)``.
        labels: classes 0..k-1, ``(...)``.
        margin: :math:`\Delta`.

    Returns:
        Losses ``(...)``; 0 once every other score is a margin below the label's. NaN for a label outside 0..k-1.

    Raises:
        TypeError: labels that are not integers, logits that are not real numbers.
        ValueError: shapes that do not match.

    References:
        Weston, Watkins (1999), Support vector machines for multi-class pattern recognition.

    >>> import jax.numpy as jnp
    >>> print(weston_watkins_hinge(jnp.array([13.0, -7.0, 11.0]), jnp.array(0), margin=10.0))
    8.0
    """
    violations, dtype = _violations(logits, labels, margin)
    return jnp.sum(violations, axis=-1).astype(dtype)


def crammer_singer_hinge(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"], margin: float = 1.0
) -> Float[Array, "*b"]:
    r"""Multiclass hinge of the worst other class, :math:`\max(0, \max_{j \ne y} \eta_j - \eta_y + \Delta)`.

    Args:
        logits: scores ``(..., k)``.
        labels: classes 0..k-1, ``(...)``.
        margin: :math:`\Delta`.

    Returns:
        Losses ``(...)``; at most the Weston-Watkins hinge, equal to it with one violation or none. NaN for a label
        outside 0..k-1.

    Raises:
        TypeError: labels that are not integers, logits that are not real numbers.
        ValueError: shapes that do not match.

    References:
        Crammer, Singer (2001), On the algorithmic implementation of multiclass kernel-based vector machines.

    >>> import jax.numpy as jnp
    >>> print(crammer_singer_hinge(jnp.array([1.0, 2.0, 3.0]), jnp.array(0)))
    3.0
    """
    violations, dtype = _violations(logits, labels, margin)
    return jnp.max(violations, axis=-1).astype(dtype)


def _violations(logits, labels, margin):
    """max(0, score - label's score + margin) at the other classes, 0 at the label's."""
    logits, dtype = _prepare(logits)
    check_integer("labels", labels)
    check_shape("labels", labels, logits.shape[:-1], "(the leading axes of logits)")
    at_label, valid = _locate(jnp.asarray(labels), logits.shape)
    score = jnp.sum(jnp.where(at_label, logits, 0), axis=-1, keepdims=True)
    violations = jnp.where(at_label, 0, jnp.maximum(logits - score + margin, 0))
    # Multiplied, not selected: a selected constant would leave the gradient finite and wrong.
    poison = jnp.where(valid, 1, jnp.nan).astype(logits.dtype)[..., None]
    return violations * poison, dtype


def _locate(
    labels: Int[Array, "*b"], shape: tuple[int, ...]
) -> tuple[Bool[Array, "*b k"], Bool[Array, "*b"]]:
    """One-hot mask of the labels, and which labels are classes at all."""
    classes = jax.lax.broadcasted_iota(labels.dtype, shape, len(shape) - 1)
    return classes == labels[..., None], (labels >= 0) & (labels < shape[-1])


def _prepare(logits):
    check_floating("logits", logits)
    logits = jnp.asarray(logits)
    dtype = logits.dtype if jnp.issubdtype(logits.dtype, jnp.floating) else jnp.result_type(float)
    return logits.astype(compute_dtype(dtype)), dtype
