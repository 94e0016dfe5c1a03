"""Positive semidefinite systems, in whatever units and however nearly singular."""

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.lapack import cholesky, solve_with_root

REFINEMENTS = 2


def solve_semidefinite(
    matrix: Float[Array, "m m"], right: Float[Array, " m"], enough: float = 0.0
) -> Float[Array, " m"]:
    r"""Solution of a consistent positive semidefinite system, whatever the units of its variables.

    Scaled to a unit diagonal, A x = b, so that a ridge of a few roundings makes the factorisation safe where features
    are collinear or constant; refinements with the matrix itself then take the ridge out again in every direction that
    has curvature. With the ridge it is x, :math:`(A + \rho)\, x = b`, and short of the solution by
    :math:`e = \rho A^{-1} x`. In directions of no less curvature than the ridge

    .. math:: e^\top A\, e = \rho^2 x^\top A^{-1} x \le \rho\, x^\top x ,

    and there are no refinements if that is at most :math:`\mathrm{enough}^2\, x^\top b`, which is below the square
    of the solution itself in the norm of A.
    """
    root, scaled, ridge, lower = _factorised(matrix)
    target = root * right

    def refine(_: int, x: Float[Array, " m"]) -> Float[Array, " m"]:
        residual = target - jnp.matmul(scaled, x, precision=jax.lax.Precision.HIGHEST)
        return x + solve_with_root(lower, residual)

    start = solve_with_root(lower, target)
    needed = ridge * jnp.sum(start**2) > enough**2 * jnp.sum(start * target)
    return root * jax.lax.fori_loop(0, jnp.where(needed, REFINEMENTS, 0), refine, start)


def factorise(matrix: Float[Array, "m m"]) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """D that scales M to a unit diagonal, and the root L of D M D = L L^T, but for a ridge of a few roundings.

    In differences from one of k classes the smallest eigenvalues are about 1 / k: for 300 classes in float32 a ridge
    of 4 m roundings, which no matrix of m rows was seen to need more than, is a tenth of them, and still in the third
    digit after the refinements.
    """
    root, _, _, lower = _factorised(matrix)
    return root, lower


def _factorised(matrix):
    """D, D M D, the ridge, and the root of both."""
    root, scaled = _scaled(matrix)
    eye = jnp.eye(matrix.shape[0], dtype=matrix.dtype)

    def ridged(ridge: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, "m m"]]:
        # Transposed, which changes nothing: that is how LAPACK reads it, and it spares a copy.
        return ridge, cholesky((scaled + ridge * eye).T)

    def failed(carry: tuple[Float[Array, ""], Float[Array, "m m"]]) -> Bool[Array, ""]:
        return ~jnp.isfinite(carry[1][-1, -1]) & (carry[0] < 1)

    # A few roundings; more where they were not enough (a factorisation that fails is NaN to its last entry).
    first = ridged(jnp.asarray(_noise(matrix), matrix.dtype))
    ridge, lower = jax.lax.while_loop(failed, lambda carry: ridged(100 * carry[0]), first)
    return root, scaled, ridge, lower


def factorise_exactly(
    matrix: Float[Array, "m m"],
) -> tuple[Float[Array, " m"], Float[Array, "m m"], Bool[Array, ""]]:
    """D that scales M to a unit diagonal, the root L of D M D = L L^T, and whether M is singular to the dtype.

    No ridge. A pivot is what is left of a unit diagonal once the directions before it are taken out: one of a few
    roundings is a direction without curvature, and its inverse is noise.
    """
    root, scaled = _scaled(matrix)
    lower = cholesky(scaled)
    # A factorisation that fails is NaN, and no NaN is larger than noise.
    return root, lower, ~jnp.all(jnp.diagonal(lower) ** 2 > _noise(matrix))


def _scaled(matrix):
    """D, and D M D. A variable without curvature stays: its pivot is 0."""
    diagonal = jnp.diagonal(matrix)
    root = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    return root, matrix * root[:, None] * root[None, :]


def _noise(matrix):
    """What rounding may make of a pivot that is 0.

    Of 400 variables in float32, all of them multiples of one, it was 0.8 of this, of others 0.4 at most. Of
    1000 multiples of one it was 4 times as much, and the factorisation fails.
    """
    return 10 * matrix.shape[0] ** 0.5 * float(jnp.finfo(matrix.dtype).eps)
