"""Work that is done only if it is needed, in lanes as well."""

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.solvers.only_if import only_if


def inverse_if(needed, matrix):
    return only_if(needed != 0, jnp.linalg.inv, matrix, jnp.zeros_like(matrix))


def test_each_lane_has_its_own_answer():
    matrices = jnp.stack([2 * jnp.eye(2), 4 * jnp.eye(2)])
    got = jax.jit(jax.vmap(inverse_if))(jnp.array([True, False]), matrices)
    np.testing.assert_array_equal(got, [0.5 * np.eye(2), np.zeros((2, 2))])


def test_the_compiler_leaves_the_work_inside():
    def search(needed, matrix):
        # As in a line search or a descent: a loop in a loop, from which the compiler moves what does not change.
        return jax.lax.fori_loop(0, 3, lambda i, x: x + inverse_if(needed > i, matrix), matrix)

    lanes = jax.ShapeDtypeStruct((4,), jnp.int32), jax.ShapeDtypeStruct((4, 3, 3), jnp.float32)
    for program in (search, inverse_if):
        text = jax.jit(jax.vmap(program)).lower(*lanes).compile().as_text()
        factorised = [part for part in text.split("\n\n") if "getrf" in part]
        assert factorised
        for computation in factorised:
            assert "ENTRY" not in computation.splitlines()[0]
