"""Features as a caller has them, and the table of numbers that they become: the part of ``make_data`` that reads X.

Every number is read once, without a copy of the table. What is asked of a column is that its numbers are finite, and
that they still are, and still differ, in the dtype in which they will be kept.
"""

import warnings
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import host_array, is_missing, name_column, refuse_first

BLOCK = 1 << 20
"""Numbers that are looked at together: few enough to stay in a cache."""


class Table(NamedTuple):
    """Real numbers in rows and columns, in the dtype they came in."""

    values: np.ndarray | jax.Array
    columns: list[str] | None
    """What the caller calls the columns."""

    @property
    def dtype(self) -> np.dtype:
        """The floating dtype in which the numbers will be kept."""
        dtype = self.values.dtype
        if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize >= 8:
            return np.dtype(jnp.result_type(float))
        return np.dtype(dtype).newbyteorder("=")


def read_table(features: Any) -> Table:
    """The numbers of an array, a nested list, or a table of pandas or polars, n rows of d.

    Raises:
        TypeError: what is not a real number, with its row and column. Strings are not parsed.
        ValueError: no rows, or not two axes.
    """
    names = getattr(features, "columns", None)
    columns = None if names is None or callable(names) else [str(name) for name in names]
    for j, dtype in enumerate(getattr(features, "dtypes", ())):
        # polars makes numbers of dates.
        if hasattr(dtype, "is_temporal") and dtype.is_temporal():
            raise TypeError(
                f"features: expected real numbers, got {dtype} in {name_column(j, columns)}"
            )
    x = host_array("features", features)
    if x.ndim != 2:
        advice = "; one feature is one column, features[:, None]" if x.ndim == 1 else ""
        raise ValueError(
            f"features: expected 2 axes (examples, features), got shape {x.shape}{advice}"
        )
    if x.shape[0] == 0:
        raise ValueError(f"features: expected at least one example, got shape {x.shape}")
    kind = getattr(x.dtype, "kind", None) or "V"
    if kind in "UST" and not isinstance(features, np.ndarray):
        x = np.asarray(features, object)  # a list, of whose numbers NumPy made strings
    if kind in "USTO":
        return Table(numbers_of_objects("features", np.asarray(x, object), columns), columns)
    if not is_real(x.dtype):
        raise TypeError(
            f"features: expected real numbers, got {x.dtype} in {name_column(0, columns)}"
        )
    return Table(x, columns)


def is_real(dtype: Any) -> bool:
    """Whether a dtype holds real numbers; booleans are 0 and 1."""
    if getattr(dtype, "kind", None) == "m":  # a timedelta is an integer to NumPy
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def numbers_of_objects(name: str, x: np.ndarray, columns: list[str] | None = None) -> np.ndarray:
    """A table of Python's numbers as float64, with NaN for a missing one."""
    numbers = np.empty(x.shape, np.float64)
    for j, column in enumerate(x.T):
        for kind in set(map(type, column)):
            i = next(i for i, value in enumerate(column) if type(value) is kind)
            if not issubclass(kind, (Real, Decimal, np.bool_)) and not is_missing(column[i]):
                raise TypeError(
                    f"{name}: expected real numbers, got {kind.__name__} {column[i]!r} in row {i}, "
                    f"{name_column(j, columns)}"
                )
        numbers[:, j] = [np.nan if is_missing(value) else _float(value) for value in column]
    return numbers


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf


def check_table(table: Table, present: np.ndarray) -> None:
    """Refuses what is not finite, or would not be, or would not differ, in the dtype of the table.

    Raises:
        ValueError: with row, column and value, or column and range. Rows that are not ``present`` are not looked at.

    Warns:
        UserWarning: a column so far from 0, for its range, that arithmetic keeps fewer than half of the digits.
    """
    x, columns = table
    low, high = _range(x, present)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        values = np.asarray(x)
        bad = ~np.isfinite(values) & present[:, None]
        refuse_first(bad, values, "features", "a finite number", columns)
    accuracy = jnp.finfo(jnp.promote_types(table.dtype, jnp.float32))  # of the arithmetic
    eps, tiny = float(accuracy.eps), float(accuracy.tiny)
    with np.errstate(all="ignore"):
        stored = [end.astype(table.dtype).astype(np.float64) for end in (low, high)]
        too_large = ~(np.isfinite(stored[0]) & np.isfinite(stored[1]))
        # Rounding keeps the order: where both ends fall together, so does all that is between them.
        stored = [np.where(np.abs(end) < tiny, 0, end) for end in stored]  # subnormals are flushed
        merged = (low < high) & (stored[0] == stored[1])
        size = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
        spread = high.astype(np.float64) - low.astype(np.float64)
        blurred = (spread > 0) & (np.sqrt(eps) * size > spread)

    def describe(which: np.ndarray) -> str:
        j = int(np.argmax(which))
        more = f" (and in {np.sum(which) - 1} more)" if np.sum(which) > 1 else ""
        return f"from {low[j]} to {high[j]} in {name_column(j, columns)}{more}"

    if np.any(too_large):
        raise ValueError(
            f"features: expected numbers that {table.dtype} can hold, got them {describe(too_large)}"
        )
    if np.any(merged):
        raise ValueError(
            f"features: expected numbers that {table.dtype} can tell apart, got them {describe(merged)}, "
            "where they become one; subtract the mean and divide by the spread before, in a wider dtype"
        )
    if np.any(blurred):
        wider = " (or switch on jax_enable_x64)" if accuracy.bits < 64 else ""
        warnings.warn(
            f"features: numbers {describe(blurred)} are so far from 0, for their spread, that {accuracy.dtype} "
            f"keeps fewer than half of their digits; subtract the mean before, in a wider dtype{wider}",
            stacklevel=3,
        )


def _range(x: np.ndarray | jax.Array, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest number of each column; NaN where there is one."""
    if isinstance(x, jax.Array):
        return _range_on_device(x, present)
    ends: list[np.ndarray] = []
    rows = max(1, BLOCK // max(x.shape[1], 1))
    for start in range(0, x.shape[0], rows):
        block, counts = x[start : start + rows], present[start : start + rows]
        block = block if counts.all() else block[counts]
        if block.dtype.itemsize < 4 and jnp.issubdtype(block.dtype, jnp.floating):
            block = block.astype(np.float32)  # NumPy compares half precision ten times slower
        if len(block):
            ends += [block.min(axis=0), block.max(axis=0)]
    return np.min(ends[0::2], axis=0), np.max(ends[1::2], axis=0)


def _range_on_device(x: jax.Array, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        largest, least = int(jnp.iinfo(x.dtype).max), int(jnp.iinfo(x.dtype).min)
    else:
        largest, least = np.inf, -np.inf
    counts = jnp.asarray(present)[:, None]
    low = jnp.min(x, axis=0, initial=largest, where=counts)
    high = jnp.max(x, axis=0, initial=least, where=counts)
    # Asked for by itself: the smallest of numbers on several CPU devices is not NaN where one of them is.
    finite = np.asarray(jnp.all(jnp.isfinite(x) | ~counts, axis=0))
    if finite.all():
        return np.asarray(low), np.asarray(high)
    return np.where(finite, low, np.nan), np.where(finite, high, np.nan)
