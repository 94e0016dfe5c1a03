"""Labels as a caller has them, and the classes 0..k-1 that they become: the part of ``make_data`` that numbers classes.

Nothing is guessed. Integers are classes already; names are numbered in sorted order, or in the order that the caller
gives them. A label that could be read in two ways is refused.
"""

import operator
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import host_array, is_missing, refuse_first

Classes = tuple[Hashable, ...]

ENCODE = (
    "; names of classes are numbered by classes=[...], or by np.unique(labels, return_inverse=True)"
)
NO_CLASS = -1  # the label of an absent row that holds nothing better; were it ever to count, the loss would be NaN


class Encoded(NamedTuple):
    """Checked labels, and the classes that they speak of."""

    labels: np.ndarray | jax.Array
    """``(n,)`` int32, or ``(n, k)`` as they came."""
    num_classes: int
    classes: Classes | None


def encode(
    labels: Any,
    present: np.ndarray,
    num_classes: int | None = None,
    classes: Sequence[Hashable] | None = None,
) -> Encoded:
    """Checks the labels of n examples and numbers them. What stands in rows that are not ``present`` is no error."""
    k = _checked_number(num_classes)
    names = _declared(labels, classes)
    if names is not None and k not in (None, len(names)):
        raise ValueError(
            f"num_classes: expected {len(names)}, as many as there are classes={names}, got {k}"
        )
    y = host_array("labels", labels)
    n = present.size
    if y.shape[:1] != (n,):
        got = f"{y.shape[0]}" if y.ndim == 1 else f"shape {y.shape}"
        raise ValueError(f"labels: expected {n}, one for each row of features, got {got}")
    if y.ndim == 2 and jnp.issubdtype(y.dtype, jnp.floating):
        return _probabilities(y, present, k, names)
    if y.ndim != 1:
        advice = "; .ravel() makes a column of classes flat" if y.size == n else ""
        raise ValueError(
            f"labels: expected shape ({n},) for classes, or floats of shape ({n}, k) for probabilities, "
            f"got {y.dtype} of shape {y.shape}{advice}"
        )
    y = np.asarray(y)
    if y.dtype.kind in "mMcV":
        raise TypeError(f"labels: expected integers, strings or booleans, got {y.dtype}")
    # NumPy makes one kind of a list that mixes 1 with "1" or with True: a list is read item by item.
    listed = isinstance(labels, (list, tuple))
    if names is None and y.dtype.kind in "iuf" and not listed:
        return _integers(y, present, k)
    return _objects(labels if listed else y.tolist(), present, k, names)


def _checked_number(num_classes):
    if num_classes is None:
        return None
    try:
        k = operator.index(num_classes)
    except TypeError:
        raise TypeError(f"num_classes: expected an integer, got {num_classes!r}") from None
    if isinstance(num_classes, bool) or not 1 <= k < 2**31:
        raise ValueError(f"num_classes: expected an integer >= 1, got {num_classes!r}")
    return k


def _declared(labels, classes) -> Classes | None:
    """Names in the caller's order: given, or the categories of a categorical series."""
    if classes is None:
        classes = getattr(getattr(labels, "dtype", None), "categories", None)
        if not hasattr(
            classes, "__len__"
        ):  # a Categorical of polars has categories, but not those of this series
            return None
    names = tuple(_item(name) for name in classes)
    if not names:
        raise ValueError("classes: expected at least one, got none")
    if any(is_missing(name) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"classes: expected different names, none of them missing, got {names}")
    return names


def _item(value: Any) -> Any:
    """A scalar of NumPy or JAX as Python's."""
    return value.item() if isinstance(value, (np.generic, jax.Array)) else value


def _objects(
    labels: Sequence, present: np.ndarray, k: int | None, names: Classes | None
) -> Encoded:
    if any(issubclass(kind, (np.generic, jax.Array)) for kind in set(map(type, labels))):
        labels = [_item(label) for label in labels]
    values = np.fromiter(labels, object, len(labels))
    if not set(map(type, labels)) <= {int, str, bool}:
        missing = np.array([is_missing(label) for label in labels], bool)
        refuse_first(missing & present, values, "labels", "a class")
    kinds = list(dict.fromkeys(map(type, values[present])))
    if names is None and set(kinds) <= {int, float}:
        return _integers(_numbers(labels, float in kinds), present, k)
    names = _shown(values, present, kinds) if names is None else names
    if k not in (None, len(names)):
        raise ValueError(
            f"labels: expected {k} classes, got {len(names)}: {_spell(names)}; classes=[...] can name more than occur"
        )
    codes = {name: j for j, name in enumerate(names)}
    y = np.array([codes.get(label, NO_CLASS) for label in labels], np.int32)
    refuse_first((y == NO_CLASS) & present, values, "labels", f"one of the classes {_spell(names)}")
    return Encoded(y, len(names), names)


def _numbers(labels: Sequence, floats: bool) -> np.ndarray:
    kinds = (int, float) if floats else int
    numbers = [label if isinstance(label, kinds) else NO_CLASS for label in labels]
    try:
        return np.array(numbers, np.float64 if floats else np.int64)
    except OverflowError:
        return np.array(numbers, object)


def _shown(values: np.ndarray, present: np.ndarray, kinds: list[type]) -> Classes:
    """The names that occur, sorted."""
    if kinds == [bool]:
        return (False, True)
    if len(kinds) > 1:
        first, other = (
            next(i for i in np.flatnonzero(present) if type(values[i]) is kind)
            for kind in kinds[:2]
        )
        raise ValueError(
            f"labels: expected names of one kind, but this mixes {' and '.join(kind.__name__ for kind in kinds)}: "
            f"{values[first]!r} in row {first}, {values[other]!r} in row {other}"
        )
    try:
        return tuple(sorted(set(values[present])))
    except TypeError:
        raise TypeError(
            f"labels: expected integers, strings or booleans, got {kinds[0].__name__}, which cannot be sorted; "
            "classes=[...] gives names an order"
        ) from None


def _integers(y: np.ndarray, present: np.ndarray, k: int | None) -> Encoded:
    """Classes 0..k-1 of any dtype, compared in their own so that nothing can wrap."""
    if y.dtype.kind == "f":
        refuse_first(
            ~(np.isfinite(y) & (y == np.floor(y))) & present, y, "labels", "a whole number"
        )
    top = "k-1" if k is None else k - 1
    refuse_first((y < 0) & present, y, "labels", f"a class 0..{top}", advice=ENCODE)
    if k is None:
        k = _largest(y, present) + 1
    refuse_first((y >= k) & present, y, "labels", f"a class 0..{top}", advice=ENCODE)
    valid = (y >= 0) & (y < k)
    classes = np.full(y.shape, NO_CLASS, np.int32)
    classes[valid] = y[valid]
    return Encoded(classes, k, None)


def _largest(y: np.ndarray, present: np.ndarray) -> int:
    """The largest class, provided that all the smaller ones occur: if not, k is not to be read off the labels."""
    shown = np.unique(y[present])
    top = int(shown[-1])
    if len(shown) <= top:
        absent = next(j for j, label in enumerate(shown) if label != j)
        row = np.flatnonzero((y == top) & present)[0]
        raise ValueError(
            f"labels: expected every class from 0 to the largest, got {top} in row {row} but {absent} in none; "
            f"num_classes=... says that there is such a class{ENCODE}"
        )
    return top


def _probabilities(
    y: np.ndarray | jax.Array, present: np.ndarray, k: int | None, names: Classes | None
) -> Encoded:
    if k is None:
        k = y.shape[1] if names is None else len(names)
    if y.shape[1] != k or k == 0:
        raise ValueError(
            f"labels: expected {k or 'at least 1'} probabilities a row, got shape {y.shape}"
        )
    p = np.asarray(y)
    with np.errstate(invalid="ignore"):
        refuse_first(~(np.isfinite(p) & (p >= 0)) & present[:, None], p, "labels", "a probability")
        total = p.sum(axis=1, dtype=np.float64)
        # Rows that were normalised in float32, or written with six digits, are meant to sum to 1.
        off = np.abs(total - 1) > max(1e-5, k * float(jnp.finfo(p.dtype).eps))
    advice = "; classes are given in shape (n,)" if k == 1 else ""
    refuse_first(off & present, total, "labels", "probabilities that sum to 1", advice=advice)
    return Encoded(y, k, names)


def _spell(names: Classes) -> str:
    return repr(names[:10])[:-1] + (", ...)" if len(names) > 10 else ")")
