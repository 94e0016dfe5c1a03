"""A condition that spares its work under ``vmap`` as well."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool

S = TypeVar("S")
T = TypeVar("T")


def only_if(needed: Bool[Array, ""], compute: Callable[[S], T], where: S, otherwise: T) -> T:
    """``compute(where)`` if it is ``needed``, else ``otherwise``, of the same structure.

    ``jax.lax.cond`` would do both under ``vmap``, in every lane and with a copy of X for each. A loop of at most one
    trip keeps what the lanes share in one piece, and takes that trip only if some lane needs it.
    """

    def trip(carry: tuple[Bool[Array, ""], T]) -> tuple[Bool[Array, ""], T]:
        # Without the barrier all of the trip is the same in every trip, and the compiler takes it out of the loop.
        needed, here = jax.lax.optimization_barrier((carry[0], where))
        return jnp.zeros_like(needed), compute(here)

    return jax.lax.while_loop(lambda carry: carry[0], trip, (needed, otherwise))[1]
