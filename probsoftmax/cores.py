"""One compiled program for several arguments, on several cores at once.

Of a program whose arrays are small, a compiler for CPUs spreads little over the cores, and most of what it does spread
takes longer for it: the 20 precisions of a fold of digits take 0.10 s on two cores and 0.08 s on one. So there are as
many programs at a time as there are cores.
"""

import os
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
from jax.stages import Wrapped

from probsoftmax.shapes import PyTree

SMALL = 1 << 26
"""Bytes of the arguments up to which it is worth it. What is larger keeps all cores busy by itself, and would take the
memory of several programs."""


def map_on_cores(function: Wrapped, shared: PyTree, count: int, how: Hashable) -> PyTree:
    """``function(shared, i, how)`` for all i below ``count``, stacked along a new leading axis.

    Args:
        function: compiled by ``jax.jit``, ``how`` static.
        shared: any pytree of arrays.
        count: how many, at least 1; static.
        how: what else there is to say.

    Returns:
        What ``jax.lax.map`` would. Within a program, for arguments on other devices than one CPU, and for large ones it
        is that: one after the other.
    """
    if not small_on_one_cpu(shared):
        return _in_turn(function, shared, count, how)
    numbers = list(jnp.arange(count))
    # Compiled here: whether numbers have 64 bits, and other such settings, are known to this thread alone.
    compiled = function.lower(shared, numbers[0], how).compile()
    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        ends = pool.map(lambda number: jax.block_until_ready(compiled(shared, number)), numbers)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends)


@partial(jax.jit, static_argnames=("function", "count", "how"))
def _in_turn(function: Wrapped, shared: PyTree, count: int, how: Hashable) -> PyTree:
    return jax.lax.map(lambda number: function(shared, number, how), jnp.arange(count))


def small_on_one_cpu(arrays: PyTree) -> bool:
    """Whether these are values, not traced, of at most ``SMALL`` bytes, and all on one CPU."""
    leaves = jax.tree.leaves(arrays)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False
    devices = set().union(*(leaf.devices() for leaf in leaves))
    return (
        len(devices) == 1
        and all(device.platform == "cpu" for device in devices)
        and sum(leaf.nbytes for leaf in leaves) <= SMALL
    )
