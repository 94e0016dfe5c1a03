"""One compiled program for several arguments, on several cores at once.

Of a program whose arrays are small, a compiler for CPUs spreads little over the cores, and most of what it does spread
takes longer for it: the 20 precisions of a fold of digits take 0.10 s on two cores and 0.08 s on one. So there are as
many programs at a time as there are cores. A library of linear algebra that has threads of its own is held to one for
as long: the others, which it wakes for the principal axes of 64 features, turn in circles for some 25 ms after their
work, in case there is more, each on a core that a fold wants (0.32 s instead of 0.22 for 5 folds of 20 precisions).
"""

import os
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.stages import Wrapped

from probsoftmax.shapes import PyTree

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

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
    with _HELD.to_one_thread(), ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        ends = pool.map(lambda number: jax.block_until_ready(compiled(shared, number)), numbers)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends)


class _LinearAlgebra:
    """How many threads the process's linear algebra has, for as long as someone asks for one."""

    def __init__(self) -> None:
        self._lock, self._asking, self._before = Lock(), 0, ExitStack()

    @contextmanager
    def to_one_thread(self) -> Iterator[None]:
        """The first that comes sets it, the last that goes sets it back."""
        with self._lock:
            self._asking += 1
            if self._asking == 1:
                self._before.enter_context(_libraries().limit(limits=1, user_api="blas"))
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                if self._asking == 0:
                    self._before.close()


_HELD = _LinearAlgebra()


@cache
def _libraries() -> "ThreadpoolController":
    """Those that are loaded by the time that a program is; to look for them takes 10 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


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
