r"""Any optax transformation as a solver of ``fit_mle`` and ``fit_map``."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.objective import map_objective
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float
from probsoftmax.solvers.certificate import ENOUGH, certify
from probsoftmax.solvers.decrement import judge
from probsoftmax.solvers.minimize import scan_steps, start
from probsoftmax.solvers.problem import Problem, scores_of
from probsoftmax.solvers.recession import separates
from probsoftmax.solvers.solver import Solution, Solver
from probsoftmax.solvers.status import Status


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tolerance"],
    meta_fields=["optimizer", "steps", "batch_size", "seed"],
)
@dataclass(frozen=True)
class FirstOrder(Solver):
    """A fixed number of steps of an optax optimiser, certified at the end.

    The optimiser sees the objective divided by the total weight, so that a learning rate does not depend on n, in the
    caller's units: standardise features of different sizes first. Hashes by the optimiser object; build it once.
    """

    optimizer: optax.GradientTransformation
    """Any optax gradient transformation."""
    steps: int = 1000
    """How many steps are taken."""
    batch_size: int | None = None
    """Rows of a minibatch; all rows if ``None``."""
    seed: int = 0
    """Of the shuffling of minibatches."""
    tolerance: float | None = None
    """Nats for each unit of weight below which the fit is called converged; ``default_tolerance`` of the dtype if
    ``None``."""

    standardise: ClassVar[bool] = False

    def solve(self, problem: Problem, theta: Float[Array, "k m"]) -> Solution:
        """Take the steps, then look at the certificate."""
        k, _ = problem.shape
        prior = GaussianPrior(
            problem.precision[:, :-1].T, problem.precision[:, -1], problem.mean[:, :-1].T
        )
        data = Data(problem.features[:-1].T, problem.labels, problem.weights, k)
        total = problem.total_weight

        def mean_objective(params: Params, rows: Data) -> Float[Array, ""]:
            return map_objective(params, rows, prior) / total

        carry = start(Params(theta[:, :-1].T, theta[:, -1]), self.optimizer, None, data)
        key = jax.random.key(self.seed)
        carry, trace = scan_steps(
            carry, data, key, mean_objective, self.optimizer, self.batch_size, self.steps
        )
        found = jnp.concatenate([carry.params.weights, carry.params.bias[None, :]]).T
        batches = (
            1 if self.batch_size is None else math.ceil(data.features.shape[0] / self.batch_size)
        )
        passes = -(-jnp.sum(trace.evaluations) // batches) + 1
        finite = jnp.all(jnp.isfinite(found))
        found = jnp.where(finite, found, theta)
        allowed = self.allowed(problem)
        point = certify(problem, found, scores_of(problem, found), ENOUGH * allowed)
        verdict = judge(
            problem, point.scores, point.gradient, point.gap, allowed, jnp.ones((), bool)
        )
        ahead = point.theta.at[:, -1].add(point.ahead)
        separated = jnp.any(problem.absent) | separates(problem, ahead, point.scores)
        known = jnp.isfinite(point.objective)
        status = jnp.where(verdict.optimal, Status.CONVERGED, Status.MAX_STEPS)
        status = jnp.where(separated, Status.SEPARATED, status)
        return Solution(
            point.theta,
            point.objective,
            point.gap,
            point.gradient,
            jnp.asarray(self.steps, jnp.int32),
            (2 * passes + verdict.halves).astype(jnp.int32),
            jnp.where(finite & known, status, Status.DIVERGED).astype(jnp.int32),
        )
