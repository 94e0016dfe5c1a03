"""Preconditioned conjugate gradients, for systems with the Hessian that are too large to factorise."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int

Operator = Callable[[Float[Array, "k m"]], Float[Array, "k m"]]


class Solved(NamedTuple):
    """A solution and whether it is one."""

    x: Float[Array, "k m"]
    steps: Int[Array, ""]
    """Products with the matrix."""
    converged: Bool[Array, ""]


class _State(NamedTuple):
    x: Float[Array, "k m"]
    residual: Float[Array, "k m"]
    direction: Float[Array, "k m"]
    size: Float[Array, ""]
    """The residual's squared norm in the metric of the preconditioner."""
    steps: Int[Array, ""]


def conjugate_gradients(
    matvec: Operator,
    right: Float[Array, "k m"],
    preconditioner: Operator,
    *,
    reduction: float | Float[Array, ""],
    max_steps: int,
    start: Float[Array, "k m"] | None = None,
) -> Solved:
    """Solves a positive semidefinite system to a residual ``reduction`` times its right-hand side (Nocedal 5.3).

    The residual is measured in the metric of the preconditioner. Ends early, and not ``converged``, without curvature.
    ``start`` is the preconditioned right-hand side, if that is known: the first direction.
    """
    z = preconditioner(right) if start is None else start
    first = jnp.sum(right * z)
    goal = reduction**2 * first

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.size > goal) & (state.steps < max_steps)

    def iterate(state: _State) -> _State:
        curved = matvec(state.direction)
        curvature = jnp.sum(state.direction * curved)
        # Nothing curves along this direction but rounding errors: it is the last, and as long as the metric says.
        length = jnp.where(curvature > 0, state.size / curvature, 1)
        residual = state.residual - length * curved
        z = preconditioner(residual)
        size = jnp.where(curvature > 0, jnp.sum(residual * z), jnp.nan)
        return _State(
            state.x + length * state.direction,
            residual,
            z + size / state.size * state.direction,
            size,
            state.steps + 1,
        )

    state = _State(jnp.zeros_like(right), right, z, first, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(unfinished, iterate, state)
    return Solved(end.x, end.steps, end.size <= goal)
