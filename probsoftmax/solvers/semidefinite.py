"""Positive semidefinite systems, in whatever units and however nearly singular."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

REFINEMENTS = 2


def solve_semidefinite(
    matrix: Float[Array, "m m"], right: Float[Array, " m"]
) -> Float[Array, " m"]:
    """Solution of a consistent positive semidefinite system, whatever the units of its variables.

    Scaled to a unit diagonal, so that a ridge of a few roundings makes the factorisation safe where features are
    collinear or constant; refinements with the matrix itself then take the ridge out again in every direction that
    has curvature.
    """
    root, lower = factorise(matrix)
    scaled = matrix * root[:, None] * root[None, :]
    target = root * right

    def refine(_: int, x: Float[Array, " m"]) -> Float[Array, " m"]:
        residual = target - jnp.matmul(scaled, x, precision=jax.lax.Precision.HIGHEST)
        return x + jax.scipy.linalg.cho_solve((lower, True), residual)

    start = jax.scipy.linalg.cho_solve((lower, True), target)
    return root * jax.lax.fori_loop(0, REFINEMENTS, refine, start)


def factorise(matrix: Float[Array, "m m"]) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """D that scales M to a unit diagonal, and the root L of D M D = L L^T, but for a ridge of a few roundings."""
    diagonal = jnp.diagonal(matrix)
    root = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    scaled = matrix * root[:, None] * root[None, :]
    m = matrix.shape[0]
    eye = jnp.eye(m, dtype=matrix.dtype)

    def ridged(ridge: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, "m m"]]:
        # Transposed, which changes nothing: that is how LAPACK reads it, and it spares a copy.
        return ridge, jnp.linalg.cholesky((scaled + ridge * eye).T, symmetrize_input=False)

    def failed(carry: tuple[Float[Array, ""], Float[Array, "m m"]]) -> Bool[Array, ""]:
        return ~jnp.isfinite(carry[1][-1, -1]) & (carry[0] < 1)

    # A few roundings; more where they were not enough (a factorisation that fails is NaN to its last entry).
    first = ridged(jnp.asarray(4 * m * jnp.finfo(matrix.dtype).eps, matrix.dtype))
    return root, jax.lax.while_loop(failed, lambda carry: ridged(100 * carry[0]), first)[1]
