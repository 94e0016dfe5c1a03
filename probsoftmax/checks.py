"""Errors as expected and got: static facts of arrays, which cost nothing inside ``jit``, and values on the host.

Values are looked at outside traced code only, where an error can still be raised. (chex, whose assertions would do for
the shapes, adds a tenth to what it takes to import JAX.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def check_shape(
    name: str, array: ArrayLike, expected: tuple[int | None, ...], meaning: str
) -> None:
    """``ValueError`` unless ``array`` has the shape ``expected``; ``None`` is any length."""
    got = jnp.shape(array)
    same = len(got) == len(expected)
    if not (same and all(n in (None, m) for n, m in zip(expected, got, strict=True))):
        raise ValueError(f"{name}: expected shape {_spell(expected)} {meaning}, got {got}")


def check_broadcasts(name: str, array: ArrayLike, shape: tuple[int, ...], meaning: str) -> None:
    """``ValueError`` unless ``array`` broadcasts to ``shape`` without growing it."""
    got = jnp.shape(array)
    last = shape[len(shape) - len(got) :]
    if len(got) > len(shape) or any(m not in (1, n) for m, n in zip(got, last, strict=True)):
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {shape} {meaning}, got {got}"
        )


def check_floating(name: str, array: ArrayLike) -> None:
    """``TypeError`` unless ``array`` holds real numbers; integers pass (they are promoted), booleans do not."""
    dtype = _dtype(name, array)
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not real:
        raise TypeError(f"{name}: expected real numbers, got {dtype}")


def check_integer(name: str, array: ArrayLike) -> None:
    """``TypeError`` unless ``array`` holds integers."""
    dtype = _dtype(name, array)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name}: expected integers, got {dtype}")


def check_values(
    name: str, array: ArrayLike, accept: Callable[[np.ndarray], np.ndarray], expected: str
) -> None:
    """``ValueError`` unless every value is accepted. A traced array has none yet, and passes."""
    if isinstance(array, jax.core.Tracer):
        return
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return
    values = np.asarray(array)
    refuse_first(~accept(values), values, name, expected)


def refuse_first(
    bad: np.ndarray,
    values: np.ndarray,
    name: str,
    expected: str,
    columns: list[str] | None = None,
    advice: str = "",
) -> None:
    """``ValueError`` with the value, the row and the column of the first place where ``bad`` is true.

    Args:
        bad: of the shape of ``values``.
        values: one number, n values, or a table of n rows.
        name: what the caller calls them.
        expected: what they should have been.
        columns: what the caller calls the columns.
        advice: one more sentence.
    """
    if not np.any(bad):
        return
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    value = values[place]
    got = repr(str(value)) if isinstance(value, str) else str(value)
    where = f" in row {place[0]}" if place else ""
    where += f", {name_column(place[1], columns)}" if len(place) > 1 else ""
    more = int(np.sum(bad)) - 1
    where += f" (and in {more} more place{'s' if more > 1 else ''})" if more else ""
    raise ValueError(f"{name}: expected {expected}, got {got}{where}{advice}")


def name_column(j: int, columns: list[str] | None) -> str:
    """``column 2``, with the caller's name for it if there is one."""
    return f"column {j}" if columns is None else f"column {j} ({columns[j]!r})"


def host_array(name: str, values: Any) -> np.ndarray | jax.Array:
    """What the caller gave as an array with values: NumPy's, or JAX's where it was one and may stay on its device.

    Tables and series of pandas or polars are taken by their ``to_numpy``; neither package is imported.

    Raises:
        TypeError: a traced array, which has no values to look at; a sparse matrix.
        ValueError: rows of different lengths.
    """
    if isinstance(values, jax.core.Tracer):
        raise TypeError(
            f"{name}: expected values, got a traced array: make the data outside jit, or build ps.Data"
        )
    if hasattr(type(values), "todense"):
        raise TypeError(
            f"{name}: expected a dense array, got a sparse {type(values).__name__}; .toarray() makes it dense"
        )
    if isinstance(values, np.ma.MaskedArray):
        if not np.ma.is_masked(values):
            return values.data
        objects = values.data.astype(object)
        objects[values.mask] = None
        return objects
    if isinstance(values, (np.ndarray, jax.Array)):
        return values
    if hasattr(type(values), "to_numpy"):
        return np.asarray(values.to_numpy())
    try:
        return np.asarray(values)
    except ValueError:
        lengths = [np.size(row) for row in values]
        i = next((i for i, length in enumerate(lengths) if length != lengths[0]), 0)
        raise ValueError(
            f"{name}: expected rows of equal length, got {lengths[0]} in row 0 and {lengths[i]} in row {i}"
        ) from None


def is_missing(value: Any) -> bool:
    """Whether a value of an object array stands for none: ``None``, NaN, or pandas' ``NA`` and ``NaT``."""
    # pandas' NA is not even unequal to itself: its comparisons are NA, which has no truth value.
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _dtype(name: str, array: ArrayLike) -> Any:
    if not hasattr(array, "dtype") and not isinstance(array, (bool, int, float, complex)):
        raise TypeError(f"{name}: expected an array or a number, got {type(array).__name__}")
    return jnp.result_type(array)


def _spell(shape: tuple[int | None, ...]) -> str:
    lengths = ["any" if length is None else str(length) for length in shape]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"
