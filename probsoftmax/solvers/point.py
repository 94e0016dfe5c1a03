"""Where a descent is, and where it goes."""

from typing import Any, NamedTuple

from probsoftmax.shapes import Array, Float, Int


class Point(NamedTuple):
    """An iterate."""

    theta: Float[Array, "k m"]
    scores: Float[Array, "k n"]
    objective: Float[Array, ""]
    gradient: Float[Array, "k m"]
    spread: Float[Array, "k k"]
    """The curvature between the classes there."""


class Direction(NamedTuple):
    """A descent direction."""

    theta: Float[Array, "k m"]
    promise: Float[Array, ""]
    """What the solver expects to be left to gain, in nats: half the squared decrement in its metric."""
    memory: Any
    halves: int | Int[Array, ""]
    """Products with X, or with its transpose, that were made for it."""
