"""Integer labels inside traced code, which cannot refuse one that is no class: it makes value and gradient NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import check_integer, check_shape
from probsoftmax.numerics import as_real, check_classes
from probsoftmax.shapes import Array, Bool, Float, Int


def prepare(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> tuple[Float[Array, "*b k"], Int[Array, "*b"], jnp.dtype]:
    """Scores as they are computed, labels as int32, and the dtype of the result; ``TypeError``, ``ValueError``."""
    logits, dtype = as_real("logits", logits)
    check_classes("logits", logits)
    check_integer("labels", labels)
    check_shape("labels", labels, logits.shape[:-1], "(the leading axes of logits)")
    # Without 64-bit types JAX cuts off the upper half of an integer of NumPy: 2^32 would become class 0.
    xp = jnp if isinstance(labels, jax.Array) else np
    index = xp.asarray(labels)
    if jnp.promote_types(index.dtype, jnp.int32) != jnp.int32:
        index = xp.where(is_class(index, logits.shape), index.astype(np.int32), np.int32(-1))
    return logits, jnp.asarray(index, jnp.int32), dtype


def is_class(labels: Any, shape: tuple[int, ...]) -> Any:
    """Whether labels, of JAX or of NumPy, are classes 0..k-1 of scores of this shape."""
    return (labels >= 0) & (labels < shape[-1])


def one_hot(labels: Int[Array, "*b"], shape: tuple[int, ...]) -> Bool[Array, "*b k"]:
    """True at the label, and nowhere for one that is no class."""
    return jax.lax.broadcasted_iota(labels.dtype, shape, len(shape) - 1) == labels[..., None]


def score_of(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b 1"]:
    """Score of the label, NaN for one that is no class."""
    # Clipped or not, what is found in the place of no class is not used.
    score = jnp.take_along_axis(logits, labels[..., None], axis=-1, mode="clip")
    return score * nan_unless_class(logits, labels)


def nan_unless_class(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> Float[Array, "*b 1"]:
    """A factor of 1 or NaN. Where a NaN is only selected, the gradient stays finite and wrong."""
    factor = jnp.where(is_class(labels, logits.shape), 1, jnp.nan)
    return factor.astype(logits.dtype)[..., None]
