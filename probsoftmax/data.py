"""The data: features, labels and weights of n examples, and the one place where their values are looked at.

:class:`Data` is a plain pytree of arrays, unchecked, fit for ``jit`` and ``vmap``. :func:`make_data` is the way in:
it reads the values once, on the host, and refuses what would make a fit lie, naming row, column and value.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int


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
    """What the classes were called before they were numbered, if they were called anything; static."""


def make_data(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    num_classes: int | None = None,
) -> Data:
    """Checks examples on the host and puts them into arrays.

    Args:
        features: X ``(n, d)``: numbers, finite.
        labels: y ``(n,)``: integers 0..k-1 of any width (whole floats pass); or strings, booleans or other names of
            classes, which are sorted and numbered; or ``(n, k)`` rows of class probabilities.
        weights: s ``(n,)``, >= 0 and finite; 1 each if ``None``. Rows of weight 0 are not looked at.
        num_classes: k; if ``None``, as many as the labels show.

    Returns:
        Data in the features' float dtype (integers: the default float).

    Raises:
        ValueError: NaN or inf in X; a label outside 0..k-1, missing, or not whole; label rows that are negative or do
            not sum to 1; a negative, NaN or infinite weight, or none that is positive; no examples; lengths or
            numbers of axes that do not fit. The message names row, column and value.
        TypeError: features that are not real numbers.

    >>> data = make_data([[0.5], [1.5], [2.5]], ["no", "yes", "yes"])
    >>> data.classes, data.labels.tolist()
    (('no', 'yes'), [0, 1, 1])
    """
    x = _features(features)
    n = x.shape[0]
    s = _weights(weights, n, x.dtype)
    present = s != 0
    _refuse_first(~np.isfinite(x) & present[:, None], x, "features", "a finite number")
    y, k, classes = _labels(labels, n, num_classes, present, x.dtype)
    return Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(s), k, classes)


def _features(features: ArrayLike) -> np.ndarray:
    x = np.asarray(features)
    if x.ndim != 2:
        raise ValueError(f"features: expected 2 axes (examples, features), got shape {x.shape}")
    if x.shape[0] == 0:
        raise ValueError(f"features: expected at least one example, got shape {x.shape}")
    if not (
        jnp.issubdtype(x.dtype, np.floating)
        or np.issubdtype(x.dtype, np.integer)
        or x.dtype == bool
    ):
        raise TypeError(f"features: expected real numbers, got dtype {x.dtype}")
    if not jnp.issubdtype(x.dtype, np.floating):
        x = x.astype(jnp.result_type(float))
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))


def _weights(weights: ArrayLike | None, n: int, dtype: np.dtype) -> np.ndarray:
    if weights is None:
        return np.ones(n, dtype)
    s = np.asarray(weights, dtype)
    if s.shape != (n,):
        raise ValueError(f"weights: expected shape ({n},), one for each example, got {s.shape}")
    _refuse_first(~(np.isfinite(s) & (s >= 0)), s, "weights", "a finite number >= 0")
    if not np.any(s > 0):
        raise ValueError("weights: expected at least one > 0, got only zeros")
    return s


def _labels(labels, n, num_classes, present, dtype):
    y = np.asarray(labels)
    if y.shape[:1] != (n,):
        raise ValueError(
            f"labels: expected {n} of them, one for each row of features, got shape {y.shape}"
        )
    if y.ndim == 2 and np.issubdtype(y.dtype, np.floating):
        return _soft_labels(y.astype(dtype), num_classes, present)
    if y.ndim != 1:
        raise ValueError(
            f"labels: expected shape ({n},) for classes, or float rows of probabilities (n, k); "
            f"got {y.dtype} of shape {y.shape}"
        )
    classes = None
    if np.issubdtype(y.dtype, np.floating):
        _refuse_first(
            ~(np.isfinite(y) & (y == np.floor(y))) & present, y, "labels", "a whole number"
        )
        y = np.where(present, y, 0)
    elif not np.issubdtype(y.dtype, np.integer):
        y, classes = _number(y, present)
    return _integer_labels(y, num_classes, present, classes)


def _number(names: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    missing = np.array([name is None or name != name for name in names.tolist()])
    _refuse_first(missing & present, names, "labels", "the name of a class")
    known = [name for name, counts in zip(names.tolist(), present, strict=True) if counts]
    kinds = sorted({type(name).__name__ for name in known})
    if len(kinds) > 1:
        raise ValueError(
            f"labels: expected names of one kind, got a mixture of {' and '.join(kinds)}"
        )
    classes = tuple(sorted(set(known)))
    number = {name: j for j, name in enumerate(classes)}
    return np.array([number.get(name, 0) for name in names.tolist()]), classes


def _integer_labels(y, num_classes, present, classes):
    y = np.where(present, y, 0)
    k = int(y.max()) + 1 if num_classes is None else num_classes
    if classes is not None and len(classes) > k:
        raise ValueError(
            f"labels: expected at most {k} classes, got {len(classes)}: {classes[:10]}"
        )
    if classes is not None and len(classes) < k:
        k = len(classes) if num_classes is None else k
    _refuse_first((y < 0) | (y >= k), y, "labels", f"a class 0..{k - 1}")
    return y.astype(np.int32), k, classes


def _soft_labels(y, num_classes, present):
    k = y.shape[1] if num_classes is None else num_classes
    if y.shape[1] != k:
        raise ValueError(f"labels: expected {k} probabilities a row, got shape {y.shape}")
    y = np.where(present[:, None], y, 0)
    _refuse_first(~(np.isfinite(y) & (y >= 0)), y, "labels", "a probability >= 0")
    total = y.sum(axis=1, dtype=np.float64)
    off = np.abs(total - 1) > 16 * k * np.finfo(y.dtype).eps
    _refuse_first(off & present, total, "labels", "probabilities that sum to 1")
    return y, k, None


def _refuse_first(bad: np.ndarray, values: np.ndarray, name: str, expected: str) -> None:
    """``ValueError`` that names the first place where ``bad`` is true."""
    if not np.any(bad):
        return
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"row {place[0]}" if len(place) == 1 else f"row {place[0]}, column {place[1]}"
    more = int(np.sum(bad)) - 1
    raise ValueError(
        f"{name}: expected {expected}, got {values[place]!s} in {where}"
        + (f" (and in {more} more places)" if more else "")
    )
