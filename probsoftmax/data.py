"""The data: features, labels and weights of n examples, and the one place where their values are looked at.

:class:`Data` is a plain pytree of arrays, unchecked, fit for ``jit`` and ``vmap``. :func:`make_data` is the way in:
it reads the values once, outside traced code, and refuses what would make a fit lie, naming row, column and value.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from probsoftmax.checks import host_array, refuse_first
from probsoftmax.features import check_table, is_real, numbers_of_objects, read_table
from probsoftmax.labels import encode
from probsoftmax.shapes import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """Examples of a classifier: a pytree whose number of classes is static. Unchecked; see :func:`make_data`."""

    features: Float[Array, "n d"]
    """X: one row an example."""
    labels: Int[Array, " n"] | Float[Array, "n k"]
    """y: classes 0..k-1, or one row of class probabilities an example."""
    weights: Float[Array, " n"]
    """s: how often an example counts, >= 0. A row of weight 0 is as if absent, whatever it holds."""
    num_classes: int = field(metadata={"static": True})
    """k: static, never read off the labels inside traced code."""
    classes: tuple[Hashable, ...] | None = field(default=None, metadata={"static": True})
    """What the k classes were called before they were numbered, class j at place j; ``None`` if labels were numbers.
    For the reader only: no computation looks at it. Static, so data that is named differently is traced anew."""


def make_data(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    num_classes: int | None = None,
    classes: Sequence[Hashable] | None = None,
) -> Data:
    """Checks examples and puts them into arrays.

    Arrays of NumPy and JAX, lists, and the tables and series of pandas and polars are taken. What is given is never
    changed, and a later change of it does not reach the data; arrays of JAX stay on their devices.

    Rows of weight 0 are not looked at and keep what they hold; a label there that is no class becomes -1.

    Args:
        features: X ``(n, d)``: real numbers, finite. The floating dtype is kept; integers and booleans become the
            default float. While JAX's 64-bit types are off, float64 is rounded to float32.
        labels: y ``(n,)``: integers 0..k-1 of any width, or floats that are whole; or strings, booleans or other names
            of classes, which are numbered in sorted order, those of a categorical series in the order of its
            categories; or ``(n, k)`` floats, rows of class probabilities.
        weights: s ``(n,)``, finite and >= 0; 1 each if ``None``.
        num_classes: k. If ``None``, read off the labels, all of which must then occur; off the names, or off the
            number of columns.
        classes: names of the classes in the order of their numbers, for labels that are names: what ``Data.classes``
            of one set of examples says, to number another set in the same way.

    Returns:
        Data; labels ``(n,)`` int32 or ``(n, k)``, weights and probabilities in the dtype of the features, float32 at
        least.

    Raises:
        ValueError: NaN, inf or a missing value in X, or a column of numbers that the dtype cannot hold or tell apart; a
            label outside 0..k-1, missing, not whole, or of another kind than the others; label rows that are
            negative or do not sum to 1; a negative, NaN or infinite weight, or none that is positive; no examples;
            lengths or numbers of axes that do not fit. The message names row, column and value.
        TypeError: features or weights that are not real numbers, sparse matrices, traced arrays.

    Warns:
        UserWarning: a column far from 0 for its range, such as timestamps, of whose differences the dtype keeps fewer
            than half of the digits.

    >>> data = make_data([[0.5], [1.5], [2.5]], ["no", "yes", "yes"])
    >>> data.classes, data.labels.tolist()
    (('no', 'yes'), [0, 1, 1])
    >>> make_data([[0.1], [0.2]], ["yes", "yes"], classes=data.classes).labels.tolist()
    [1, 1]
    """
    table = read_table(features)
    n = table.values.shape[0]
    accuracy = jnp.promote_types(table.dtype, jnp.float32)
    s = _checked_weights(weights, n, accuracy)
    present = s != 0
    check_table(table, present)
    y = encode(labels, present, num_classes, classes)
    return Data(
        _own(table.values, table.dtype),
        _own(y.labels, accuracy if y.labels.ndim == 2 else np.dtype(np.int32)),
        _own(s, accuracy),
        y.num_classes,
        y.classes,
    )


def _checked_weights(weights: Any, n: int, dtype: np.dtype) -> np.ndarray:
    if weights is None:
        return np.ones(n, dtype)
    s = np.asarray(host_array("weights", weights))
    if s.shape != (n,):
        raise ValueError(
            f"weights: expected shape ({n},), one for each row of features, got {s.shape}"
        )
    if s.dtype.kind in "USTO":
        s = numbers_of_objects("weights", s.astype(object)[:, None])[:, 0]
    if not is_real(s.dtype):
        raise TypeError(f"weights: expected real numbers, got {s.dtype}")
    with np.errstate(over="ignore", under="ignore"):
        stored = s.astype(dtype)
    refuse_first(~(np.isfinite(stored) & (s >= 0)), s, "weights", f"a finite {dtype} >= 0")
    if not np.any(stored > 0):
        raise ValueError(f"weights: expected at least one {dtype} > 0, got none")
    return stored


def _own(array: np.ndarray | jax.Array, dtype: np.dtype) -> jax.Array:
    """The numbers in JAX's memory, out of the caller's reach.

    JAX reads a NumPy array when it comes to it, which may be after the caller has changed it (``jnp.array`` of JAX 0.10
    does not copy in time). So they are copied here, once, into memory that JAX can take over as it is: it wants
    64-byte boundaries.
    """
    if isinstance(array, jax.Array):
        return array.astype(dtype)
    size = array.size * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + size].view(dtype).reshape(array.shape)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # of absent rows: the others are known to fit
        np.copyto(copy, array, casting="unsafe")
    return jax.device_put(copy)
