r"""Losses of one example: scores and a label in, nats (or margins) out.

The cross-entropies are negative log-likelihoods read off the scores directly: Caffe's fused 'softmax-loss' layer
and not its 'softmax' layer followed by a logarithm, which has nothing left to take the logarithm of once a
probability has rounded to 0 or 1. The hinges belong to the support vector machine, for comparison.

Every function maps over the leading axes, class axis last, and reduces nothing: ``(..., k)`` scores give ``(...)``
losses. A label outside 0..k-1, which traced code cannot refuse, makes value and gradient NaN.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from probsoftmax.checks import check_floating, check_shape
from probsoftmax.class_index import is_class, nan_unless_class, one_hot, prepare, score_of
from probsoftmax.numerics import as_real, check_classes, log_softmax
from probsoftmax.residual import residual, soft_residual, split_at
from probsoftmax.shapes import Array, Float, Int
from probsoftmax.sigmoid import sigmoid, softplus


def softmax_cross_entropy_with_integer_labels(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> Float[Array, "*b"]:
    r"""Negative log-likelihood of a class, :math:`-\log p_y = \log\sum_j e^{\eta_j} - \eta_y`, in nats.

    The gradient is :math:`p_j` at the other classes and :math:`-\sum_{j \ne y} p_j` at the label, to a few ulp each. At
    the label it is the sum of the others as they are rounded, itself rounded once: over the classes the gradient sums
    to zero to 1 ulp of its largest entry, however many they are. (Weights that multiply it afterwards round each entry
    anew, unless they are powers of 2; so does half precision.)

    Args:
        logits: scores ``(..., k)``.
        labels: classes 0..k-1, ``(...)``.

    Returns:
        Losses ``(...)``; relative error of a few ulp down to underflow. +inf for a label whose score is -inf. NaN, with
        a NaN gradient, for a label outside 0..k-1 (-1 is not the last class).

    Raises:
        TypeError: labels that are not integers, logits that are not real numbers.
        ValueError: shapes that do not match exactly; nothing is broadcast.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[2.0, 0.0], [40.0, 0.0]])
    >>> print(softmax_cross_entropy_with_integer_labels(scores, jnp.array([0, 0])))
    [1.269280e-01 4.248354e-18]
    """
    logits, labels, dtype = prepare(logits, labels)
    return _integer_cross_entropy(logits, labels).astype(dtype)


@jax.custom_jvp
@jax.jit
def _integer_cross_entropy(logits, labels):
    score, maximum, shift, _, total, others = split_at(logits, labels)
    largest = jnp.exp(maximum - shift)
    # Where the label leads, the loss is as small as the others are; elsewhere it is at least log 2.
    excess = jnp.where(score == maximum, others, total - largest) / largest
    loss = (maximum - score) + jnp.log1p(excess)
    # The score is NaN already; the selection keeps the logarithm out of the loop of a sum over rows, where it takes
    # CPUs three times as long as alone.
    return jnp.where(is_class(labels, logits.shape), loss, jnp.nan)


@_integer_cross_entropy.defjvp
def _integer_cross_entropy_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, _) = primals, tangents
    tangent = jnp.sum(residual(logits, labels) * dlogits, axis=-1)
    return _integer_cross_entropy(logits, labels), tangent


def softmax_cross_entropy(
    logits: Float[Array, "*b k"], labels: Float[Array, "*b k"]
) -> Float[Array, "*b"]:
    r"""Cross-entropy of label probabilities and scores, :math:`-\sum_j y_j \log p_j`, in nats.

    The gradient :math:`p_j \sum_l y_l - y_j` is formed as :math:`p_j \sum_{l \ne j} y_l - y_j q_j`, which for a
    one-hot row is the exact gradient of the integer form. Its largest entry is minus the sum of the others as they are
    rounded: over the classes it sums to zero to 1 ulp of that entry, which takes up what they all are rounded by.

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
    logits, labels, dtype = _prepare_soft(logits, labels)
    check_classes("logits", logits)
    return _soft_cross_entropy(logits, labels).astype(dtype)


@jax.custom_jvp
@jax.jit
def _soft_cross_entropy(logits, labels):
    return -jnp.sum(labels * _log_p_where_it_counts(logits, labels), axis=-1)


# The tangent of labels that are held fixed is left out: 0 times the infinite slope of an impossible class is NaN.
@partial(_soft_cross_entropy.defjvp, symbolic_zeros=True)
def _soft_cross_entropy_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, dlabels) = primals, tangents
    tangent = jnp.zeros_like(logits)
    if not isinstance(dlogits, SymbolicZero):
        tangent += soft_residual(logits, labels) * dlogits
    if not isinstance(dlabels, SymbolicZero):
        tangent -= _log_p_where_it_counts(logits, labels) * dlabels
    return _soft_cross_entropy(logits, labels), jnp.sum(tangent, axis=-1)


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
    logits, labels, dtype = _prepare_soft(logits, labels)
    return _sigmoid_cross_entropy(logits, labels).astype(dtype)


@jax.custom_jvp
@jax.jit
def _sigmoid_cross_entropy(logits, labels):
    # A label of exactly 0 or 1 leaves the other term out, so that an infinite score on its side costs nothing.
    positive = jnp.where(labels == 0, 0, labels * softplus(-logits))
    negative = jnp.where(labels == 1, 0, (1 - labels) * softplus(logits))
    return positive + negative


@partial(_sigmoid_cross_entropy.defjvp, symbolic_zeros=True)
def _sigmoid_cross_entropy_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, dlabels) = primals, tangents
    tangent = jnp.zeros_like(logits)
    if not isinstance(dlogits, SymbolicZero):
        tangent += ((1 - labels) * sigmoid(logits) - labels * sigmoid(-logits)) * dlogits
    if not isinstance(dlabels, SymbolicZero):
        tangent -= logits * dlabels
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
    logits, labels, dtype = prepare(logits, labels)
    violations = jnp.maximum(logits - score_of(logits, labels) + margin, 0)
    violations = jnp.where(one_hot(labels, logits.shape), 0, violations)
    # A factor: where a NaN is only selected, the gradient stays finite and wrong.
    return violations * nan_unless_class(logits, labels), dtype


def _prepare_soft(logits, labels):
    logits, dtype = as_real("logits", logits)
    check_floating("labels", labels)
    check_shape("labels", labels, logits.shape, "(that of logits)")
    return logits, jnp.asarray(labels, logits.dtype), dtype
