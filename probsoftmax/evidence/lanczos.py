r"""The evidence of models whose Hessian is too large to hold, with an error bar.

The log-determinant of a matrix is the trace of its logarithm, and :math:`z^\top \log(H)\, z` for random signs z is
right on average; Lanczos' method has it to many digits from some tens of products with H (stochastic Lanczos
quadrature). It is not applied to H but to what is left of it once the Kronecker approximation is taken out,

.. math:: \log\det H = \log\det K + \mathrm{tr} \log\, (K^{-1/2} H K^{-1/2}),

whose diagonal is 1 along the Kronecker axes: the eigenvalues are around 1, so that few products and few probes do. The
approximation alone, :math:`\log\det K`, can be hundreds of nats off, and is not offered as an evidence.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.evidence.dense import by_laplace, unconverged
from probsoftmax.linear import Params
from probsoftmax.objective import log_joint
from probsoftmax.posterior.coordinates import rank
from probsoftmax.posterior.kronecker import (
    KroneckerAxes,
    kronecker_axes,
    log_determinant_along,
    trouble_along,
)
from probsoftmax.posterior.mode import Mode, find_mode, raise_if
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float, Int, PRNGKeyArray
from probsoftmax.solvers.conjugate_gradients import Operator
from probsoftmax.solvers.hessian import hessian_at
from probsoftmax.solvers.lapack import eigh


class EvidenceEstimate(NamedTuple):
    """An evidence by sampling, in nats."""

    log_evidence: Float[Array, ""]
    standard_error: Float[Array, ""]
    """Of the sampling: by the spread of the probes."""


def log_restricted_evidence_lanczos(
    params: Params,
    data: Data,
    prior: GaussianPrior,
    key: PRNGKeyArray,
    *,
    probes: int = 16,
    steps: int = 32,
) -> EvidenceEstimate:
    r"""``log_restricted_evidence`` where the Hessian is too large to be factorised, with its standard error.

    Takes ``probes * steps`` products with the Hessian, each a pass over X, and memory for ``steps`` vectors of the size
    of the coefficients. Priors that are compared should get the same key: their errors are then nearly the same.

    Args:
        params: the optimum under this prior, by ``fit_map``.
        data: the n examples it was fitted to.
        prior: positive on the weights and flat on the bias, or flat nowhere: then this is the evidence itself.
        key: a random key, of the probes.
        probes: how many, at least 2; the standard error falls with the root of their number.
        steps: of Lanczos' method for each probe; 32 leave an error far below that of the sampling unless the Kronecker
            approximation is poor.

    Returns:
        The estimate and its standard error. NaN, when traced, where ``log_restricted_evidence`` is.

    Raises:
        ValueError: shapes that do not fit together, fewer than 2 probes or 1 step; with values, no posterior: the
            message says what to change.

    References:
        Ubaru, Chen, Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> params, key = fit_map(data, prior).params, jax.random.key(0)
    >>> print(log_restricted_evidence_lanczos(params, data, prior, key).log_evidence.round(3))
    -2.422
    """
    if probes < 2:
        raise ValueError(f"probes: expected at least 2, got {probes}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    prior = GaussianPrior(*map(jnp.asarray, prior))
    estimate, trouble = _estimate(params, data, prior, key, probes, steps)
    raise_if(trouble)
    return estimate


@partial(jax.jit, static_argnames=("probes", "steps"))
def _estimate(
    params: Params, data: Data, prior: GaussianPrior, key: PRNGKeyArray, probes: int, steps: int
) -> tuple[EvidenceEstimate, Int[Array, ""]]:
    params, mode = find_mode(params, data, prior)
    found = kronecker_axes(mode)
    trouble = unconverged(*trouble_along(mode, found))
    operator = _without_kronecker(mode, found)

    def of_probe(key: PRNGKeyArray) -> Float[Array, ""]:
        signs = jax.random.rademacher(key, found.null.shape, params.weights.dtype)
        return log_quadratic_form(operator, jnp.where(found.null, 0, signs), steps)

    traces = jax.lax.map(of_probe, jax.random.split(key, probes))
    log_det = log_determinant_along(mode, found) + jnp.mean(traces)
    dimensions = rank(mode.coordinates, params.bias.size)
    value = by_laplace(log_joint(params, data, prior), dimensions, log_det)
    error = 0.5 * jnp.std(traces, ddof=1) / probes**0.5
    valid = trouble == 0
    return EvidenceEstimate(*(jnp.where(valid, x, jnp.nan) for x in (value, error))), trouble


def _without_kronecker(mode: Mode, found: KroneckerAxes) -> Operator:
    """K^(-1/2) H K^(-1/2) along the axes."""
    hessian = hessian_at(mode.problem, mode.scores)
    root = jnp.where(found.null, 0, jax.lax.rsqrt(jnp.where(found.null, 1, found.precision)))
    axes = found.axes / found.measure[:, None]

    def times(v: Float[Array, "k m"]) -> Float[Array, "k m"]:
        along = jnp.matmul(root * v, axes.T, precision=HIGHEST)
        pulled = hessian(jnp.matmul(found.classes, along, precision=HIGHEST))
        along = jnp.matmul(found.classes.T, pulled, precision=HIGHEST)
        return root * jnp.matmul(along, axes, precision=HIGHEST)

    return times


def log_quadratic_form(
    operator: Operator, vector: Float[Array, "k m"], steps: int
) -> Float[Array, ""]:
    r""":math:`z^\top \log(A)\, z` for a positive definite A: Gauss quadrature by Lanczos' method.

    Args:
        operator: products with A.
        vector: z.
        steps: nodes of the quadrature.

    Returns:
        A scalar.
    """
    steps = min(steps, vector.size)
    norm = jnp.sqrt(jnp.sum(vector * vector))
    basis = jnp.zeros((steps, *vector.shape), vector.dtype).at[0].set(vector / norm)
    exhausted = 100 * jnp.finfo(vector.dtype).eps

    def advance(basis: Float[Array, "s k m"], i: Int[Array, ""]):
        image = operator(basis[i])
        alpha = jnp.sum(basis[i] * image)
        # Twice against all that went before: once leaves what rounding has let back in.
        for _ in range(2):
            image = image - jnp.tensordot(jnp.tensordot(basis, image, 2), basis, 1)
        beta = jnp.sqrt(jnp.sum(image * image))
        # All that A does to z is known: what follows is zeros, and its nodes have no weight.
        alive = beta > exhausted
        following = jnp.where(alive, image / jnp.where(alive, beta, 1), 0)
        basis = basis.at[i + 1].set(following, mode="drop")
        known = jnp.any(basis[i] != 0)
        return basis, (jnp.where(known, alpha, 1), jnp.where(alive, beta, 0))

    _, (alpha, beta) = jax.lax.scan(advance, basis, jnp.arange(steps))
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    nodes, vectors = eigh(tridiagonal)
    return norm**2 * jnp.sum(vectors[0] ** 2 * jnp.log(nodes))
