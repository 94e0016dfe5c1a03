"""What a solver is: settings, and a way from a start to a solution."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import jax.numpy as jnp

from probsoftmax.shapes import Array, Float, Int
from probsoftmax.solvers.problem import Problem

SolverT = TypeVar("SolverT", bound="Solver")


class Solution(NamedTuple):
    """Where a solver stopped, in the coordinates of its problem."""

    theta: Float[Array, "k m"]
    objective: Float[Array, ""]
    gap: Float[Array, ""]
    gradient: Float[Array, "k m"]
    steps: Int[Array, ""]
    halves: Int[Array, ""]
    """Products with X, or with its transpose: two are a pass."""
    status: Int[Array, ""]


class Solver(ABC):
    """Settings of a solver: a frozen, hashable value, so that equal settings share one compiled program.

    A pytree too, whose leaves are the numbers that only end a fit: other numbers of steps and other tolerances are the
    same program.
    """

    standardise: ClassVar[bool] = True
    """Whether the solver wants centred and scaled features; a learning rate is in the caller's units instead."""

    @property
    @abstractmethod
    def tolerance(self) -> float | None:
        """Nats for each unit of weight that the fit may be off; ``default_tolerance`` of the dtype if ``None``."""

    @property
    def row_block(self) -> int | None:
        """Rows that are worked on at a time; all if ``None``, as with every solver that has no such setting."""
        return None

    @abstractmethod
    def solve(self, problem: Problem, theta: Float[Array, "k m"]) -> Solution:
        """Minimise from ``theta``."""

    def allowed(self, problem: Problem) -> Float[Array, ""]:
        """The tolerance, in nats."""
        dtype = problem.features.dtype
        tolerance = default_tolerance(dtype) if self.tolerance is None else self.tolerance
        return tolerance * problem.total_weight


def in_dtype(solver: SolverT, dtype: Any) -> SolverT:
    """The solver with its default tolerance spelled out: one program with any other tolerance."""
    tolerance = default_tolerance(dtype) if solver.tolerance is None else solver.tolerance
    return replace(cast(Any, solver), tolerance=tolerance)


def default_tolerance(dtype: Any) -> float:
    """Nats for each unit of weight: 3e-20 in float64, 2e-9 in float32.

    An error of the coefficients costs its square in nats, so an objective that is right to its last digit leaves half
    the digits of the coefficients open. This is what they need, and what a gradient in the dtype can still certify.
    """
    return float(jnp.finfo(dtype).eps) ** 1.25
