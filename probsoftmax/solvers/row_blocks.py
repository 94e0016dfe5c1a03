"""Rows in blocks: what bounds the memory of a fit, for scores never exist for more rows than a block has."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.data import Data
from probsoftmax.likelihood import sum_of_blocks
from probsoftmax.shapes import Array
from probsoftmax.solvers.problem import Problem

T = TypeVar("T")


def in_row_blocks(problem: Problem, row_block: int | None) -> Problem:
    """The same problem in as few blocks of at most ``row_block`` rows as will do; itself if that is one, or ``None``.

    Itself in the space of the rows too: they are fewer than the features, and so are scores than coefficients.
    All blocks have the same number of rows: the last of them end with a row of weight 0 where there is one too few.
    Block i has the rows i, i + blocks, i + 2 blocks, ...: where rows are sharded, every device has some of each.
    """
    blocks = _blocks(problem.weights.shape[0], row_block)
    if blocks == 1 or problem.in_row_space:
        return problem
    return replace(
        problem,
        features=_dealt(problem.features, blocks),
        labels=_dealt(problem.labels, blocks),
        weights=_dealt(problem.weights, blocks),
    )


def sum_over_rows(of_rows: Callable[[Data], T], data: Data, row_block: int | None) -> T:
    """``of_rows(data)``, which is a sum over the rows, a block at a time.

    Its derivatives are too: what they need to know of a block they find out anew.
    """
    blocks = _blocks(data.weights.shape[0], row_block)
    if blocks == 1:
        return of_rows(data)

    def of_block(rows: tuple[Array, Array, Array]) -> T:
        features, labels, weights = rows
        return of_rows(replace(data, features=features.T, labels=labels.T, weights=weights))

    rows = (data.features.T, data.labels.T, data.weights)
    rows = jax.tree.map(lambda part: _dealt(part, blocks), rows)
    return sum_of_blocks(jax.checkpoint(of_block, prevent_cse=False), rows)


def _blocks(n: int, row_block: int | None) -> int:
    return 1 if row_block is None else max(1, math.ceil(n / row_block))


def _dealt(array: Array, blocks: int) -> Array:
    """The last axis, of rows, in a leading axis of blocks, filled up with zeros: ``(blocks, ..., rows)``."""
    *others, n = array.shape
    rows = math.ceil(n / blocks)
    array = jnp.pad(array, [(0, 0)] * len(others) + [(0, blocks * rows - n)])
    return jnp.moveaxis(array.reshape(*others, rows, blocks), -1, 0)
