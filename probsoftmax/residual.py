r"""What the scores are pulled by: the gradient of a cross-entropy, :math:`p - y`, and it sums to zero.

At the label, :math:`p_y - 1` is :math:`-\sum_{j \ne y} p_j`: to the last digits only in this form, where the class is
nearly sure. The sum is that of the entries that are returned. Each of them is rounded by up to half an ulp and their
number is large: the sum of exact ones, or one that is rounded as it goes, leaves several ulp; the exact sum of rounded
ones, rounded once, leaves half an ulp of what is the largest entry.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probsoftmax.class_index import nan_unless_class, one_hot, score_of
from probsoftmax.exact_sum import exact_sum, power_of_two
from probsoftmax.jacobian import (
    log_softmax_cotangent,
    log_softmax_tangent,
    softmax_and_complement,
)
from probsoftmax.partition import above_all, along, few_classes, maximum_and_shift, sums


@jax.custom_jvp
@jax.jit
def residual(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b k"]:
    """p, and at the label minus the sum of the others as they are rounded; NaN for a label that is no class."""
    _, _, _, exponentials, total, others = split_at(logits, labels)
    scale = 1 / total
    unit = _unit_of(others * scale)
    at_label = one_hot(labels, logits.shape)
    # A power of 2 changes no digit of these products. Without it they would be those of the last line, and kept for it
    # in an array of their own; without the barrier, what is done once a row would be done in that line's loop.
    in_units = jnp.where(at_label, 0, exponentials * (scale / unit)[..., None])
    others = jax.lax.optimization_barrier(unit * exact_sum(in_units, (logits.ndim - 1,)))
    return jnp.where(at_label, -others[..., None], exponentials * scale[..., None])


@residual.defjvp
def _residual_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, _) = primals, tangents
    classes = (logits.ndim - 1,)
    p, _ = softmax_and_complement(logits, classes)
    tangent = p * log_softmax_tangent(logits, dlogits, classes)
    return residual(logits, labels), tangent * nan_unless_class(logits, labels)


@jax.custom_jvp
@jax.jit
def soft_residual(
    logits: Float[Array, "*b k"], labels: Float[Array, "*b k"]
) -> Float[Array, "*b k"]:
    """p times the sum of a row of labels, minus the labels; the largest entry is minus the sum of the others."""
    classes = (logits.ndim - 1,)
    entries = -log_softmax_cotangent(logits, labels, classes)
    size = jnp.abs(entries)
    at_largest = one_hot(jnp.argmax(size, axis=-1), logits.shape)
    unit = _unit_of(jnp.max(size, axis=-1))
    others = unit * exact_sum(jnp.where(at_largest, 0, entries / unit[..., None]), classes)
    return jnp.where(at_largest, -others[..., None], entries)


@soft_residual.defjvp
def _soft_residual_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, dlabels) = primals, tangents
    classes = (logits.ndim - 1,)
    p, _ = softmax_and_complement(logits, classes)
    dp = p * log_softmax_tangent(logits, dlogits, classes)
    tangent = dp * jnp.sum(labels, axis=-1, keepdims=True)
    tangent -= log_softmax_cotangent(logits, dlabels, classes)
    return soft_residual(logits, labels), tangent


def split_at(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> tuple[Float[Array, "..."], ...]:
    """Score of the label, the largest score, the shift; of the exponentials: all, their sum, the sum but the label's.

    Score and sum are NaN for a label that is no class.
    """
    axis = (logits.ndim - 1,)
    maximum, shift = maximum_and_shift(logits, axis)
    score = score_of(logits, labels)[..., 0]
    exponentials = jnp.exp(logits - along(shift, axis))
    if few_classes(logits, axis) or logits.shape[-1] > 1 << 24:  # where places are no longer exact
        others = jnp.where(one_hot(labels, logits.shape), 0, exponentials)
        total, others = sums(axis, exponentials, others)
        total *= nan_unless_class(logits, labels)[..., 0]
    else:
        # A minimum in place of the selection (see partition.py): with 0 at the label, and with more elsewhere.
        scale = above_all(logits, axis)
        place = scale * jax.lax.broadcasted_iota(logits.dtype, logits.shape, axis[0])
        label = scale * labels.astype(logits.dtype)
        others = jnp.sum(jnp.minimum(jnp.abs(place - along(label, axis)), exponentials), axis)
        total = jnp.exp(score - shift) + others
    return score, maximum, shift, exponentials, total, others


def _unit_of(x):
    """A power of 2 about as large as x >= 0, and above 0 too."""
    return power_of_two(jnp.maximum(x, jnp.finfo(x.dtype).smallest_normal))
