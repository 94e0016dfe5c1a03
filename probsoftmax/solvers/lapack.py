"""Factorisations and systems in many lanes, many programs and on many devices at once.

A CPU's LAPACK takes matrices one by one. Of a batch, as ``vmap`` makes it, jaxlib gives every thread of the device a
part, and one of those threads waits for the others: two such calls at a time, of two programs, or of two devices that
share their threads, can wait for each other for ever. (Two fits under ``vmap`` in two threads of Python did, on two
cores, and so did one fit whose lanes were laid out over two simulated devices.) What is too little work to be divided
is done at once, and no more is asked for here. On two cores it takes no longer: those of a small fit are better used
by another.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Float

DIVIDED = 200_000
"""Multiplications from which jaxlib divides a batch, by its own count of them."""

TRIANGLE = 32
"""Rows up to which the inverse of a triangle is left to LAPACK."""

Lapack = Callable[..., Any]


def _undivided(cost: Callable[..., int]) -> Callable[[Lapack], Lapack]:
    """A function of matrices that takes as many lanes at once as ``cost``, that of one of them, allows."""

    def of_lanes(function: Lapack) -> Lapack:
        call = custom_vmap(function)

        def in_turn(*matrices: Array) -> Any:
            return jax.lax.map(lambda lane: call(*lane), matrices, batch_size=at_once(*matrices))

        def at_once(*matrices: Array) -> int:
            # As even parts as can be: what is left over is compiled once more.
            lanes, most = len(matrices[0]), max(1, (DIVIDED - 1) // max(1, cost(*matrices)))
            return -(-lanes // max(1, -(-lanes // most)))

        @call.def_vmap
        def of_a_batch(size: int, batched: list[bool], *matrices: Array) -> tuple[Any, Any]:
            if list(batched) == [False, True]:
                # One matrix in all lanes: their right-hand sides are columns of one.
                right = jnp.moveaxis(matrices[1], 0, -1)
                found = call(matrices[0], right.reshape(*right.shape[:-2], -1))
                return jnp.moveaxis(found.reshape(right.shape), -1, 0), True
            lanes = [
                each if there else jnp.broadcast_to(each, (size, *each.shape))
                for each, there in zip(matrices, batched, strict=True)
            ]
            # Lanes may have lanes: of a vmap within a vmap.
            shape = lanes[0].shape[:-2]
            lanes = [each.reshape(-1, *each.shape[-2:]) for each in lanes]
            if at_once(*lanes) == len(lanes[0]):
                found = call(*lanes)
            else:
                found = jax.lax.platform_dependent(*lanes, cpu=in_turn, default=call)
            found = jax.tree.map(lambda part: part.reshape(*shape, *part.shape[1:]), found)
            return found, jax.tree.map(lambda _: True, found)

        # (A rule for lanes has no derivative in reverse. Those of the function itself do.)
        alone = jax.custom_jvp(lambda *matrices: call(*matrices))
        alone.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
        return alone

    return of_lanes


@_undivided(lambda matrix: matrix.shape[-1] ** 3 // 3)
def cholesky(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The root L of M = L L^T, of which only the lower triangle is read; NaN if there is none."""
    return jnp.linalg.cholesky(matrix, symmetrize_input=False)


@_undivided(lambda matrix: 10 * matrix.shape[-1] ** 3)
def eigh(matrix: Float[Array, "m m"]) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix, of which only the lower triangle is read."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


@_undivided(lambda matrix: 4 * matrix.shape[-2] * matrix.shape[-1] ** 2)
def qr(matrix: Float[Array, "d n"]) -> tuple[Float[Array, "d r"], Float[Array, "r n"]]:
    """Q R by reflections."""
    q, r = jnp.linalg.qr(matrix)
    return q, r


def inverse_of_triangle(lower: Float[Array, "m m"]) -> Float[Array, "m m"]:
    r"""L^-1, by halves.

    .. math:: \begin{pmatrix} A & 0 \\ B & C \end{pmatrix}^{-1}
              = \begin{pmatrix} A^{-1} & 0 \\ -C^{-1} B A^{-1} & C^{-1} \end{pmatrix}

    Products serve all lanes at once. And a triangle of 80 rows is enough for a library of many threads to wake them,
    which then turn in circles for a while, in case there is more to do, on the cores that other work is to be done on.
    """
    m, half = len(lower), len(lower) // 2
    if m <= TRIANGLE:
        return _below(lower, jnp.eye(m, dtype=lower.dtype))
    a, b, c = lower[:half, :half], lower[half:, :half], lower[half:, half:]
    a_inverse, c_inverse = inverse_of_triangle(a), inverse_of_triangle(c)
    mixed = -jnp.matmul(jnp.matmul(c_inverse, b, precision=HIGHEST), a_inverse, precision=HIGHEST)
    nothing = jnp.zeros((half, m - half), lower.dtype)
    return jnp.block([[a_inverse, nothing], [mixed, c_inverse]])


def solve_triangle(lower: Float[Array, "m m"], right: Float[Array, "m *r"]) -> Float[Array, "m *r"]:
    """L^-1 times ``right``, a vector or a matrix."""
    return _below(lower, right.reshape(len(right), -1)).reshape(right.shape)


def solve_transposed(
    lower: Float[Array, "m m"], right: Float[Array, "m *r"]
) -> Float[Array, "m *r"]:
    """L^-T times ``right``, a vector or a matrix."""
    return _above(lower, right.reshape(len(right), -1)).reshape(right.shape)


def solve_with_root(
    lower: Float[Array, "m m"], right: Float[Array, "m *r"]
) -> Float[Array, "m *r"]:
    """(L L^T)^-1 times ``right``, a vector or a matrix."""
    return solve_transposed(lower, solve_triangle(lower, right))


def solve(matrix: Float[Array, "m m"], right: Float[Array, " m"]) -> Float[Array, " m"]:
    """M^-1 times ``right``."""
    return _any(matrix, right[:, None])[:, 0]


def _columns(matrix, right):
    return matrix.shape[-1] ** 2 * right.shape[-1]


@_undivided(_columns)
def _below(lower, right):
    return jax.lax.linalg.triangular_solve(lower, right, left_side=True, lower=True)


@_undivided(_columns)
def _above(lower, right):
    return jax.lax.linalg.triangular_solve(
        lower, right, left_side=True, lower=True, transpose_a=True
    )


@_undivided(lambda matrix, right: matrix.shape[-1] ** 2 * max(matrix.shape[-1], right.shape[-1]))
def _any(matrix, right):
    return jnp.linalg.solve(matrix, right)
