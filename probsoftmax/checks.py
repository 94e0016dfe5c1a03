"""Errors that can be known before anything is computed: shapes, ranks and dtypes, as expected and got.

chex asserts; its ``AssertionError`` is rewritten into the ``ValueError`` or ``TypeError`` that a caller of a
public function should see. Only static facts are looked at, so a check costs nothing inside ``jit``.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def check_shape(
    name: str, array: ArrayLike, expected: tuple[int | None, ...], meaning: str
) -> None:
    """``ValueError`` unless ``array`` has the shape ``expected``; ``None`` is any length."""
    got = jax.ShapeDtypeStruct(jnp.shape(array), jnp.float32)
    _rewrite(
        lambda: chex.assert_shape(got, expected),
        ValueError(f"{name}: expected shape {_spell(expected)} {meaning}, got {got.shape}"),
    )


def check_broadcasts(name: str, array: ArrayLike, shape: tuple[int, ...], meaning: str) -> None:
    """``ValueError`` unless ``array`` broadcasts to ``shape`` without growing it."""
    got = jnp.shape(array)
    _rewrite(
        lambda: chex.assert_is_broadcastable(got, shape),
        ValueError(f"{name}: expected a shape that broadcasts to {shape} {meaning}, got {got}"),
    )


def check_floating(name: str, array: ArrayLike) -> None:
    """``TypeError`` unless ``array`` holds real numbers; integers pass (they are promoted), booleans do not."""
    dtype = jnp.result_type(array)
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not real:
        raise TypeError(f"{name}: expected real numbers, got {dtype}")


def check_integer(name: str, array: ArrayLike) -> None:
    """``TypeError`` unless ``array`` holds integers."""
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name}: expected integers, got {dtype}")


def _rewrite(assertion: Callable[[], Any], error: Exception) -> None:
    try:
        assertion()
    except AssertionError:
        raise error from None


def _spell(shape: tuple[int | None, ...]) -> str:
    lengths = ["any" if length is None else str(length) for length in shape]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"
