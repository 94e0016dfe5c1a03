r"""The evidence by Laplace's method, with the determinant of the whole Hessian,

.. math:: \log p(y \mid X) \approx \log p(y \mid X, \hat W) + \log p(\hat W) + \tfrac r2 \log 2\pi
          - \tfrac12 \log\det H,

for r coefficients. An improper prior has no evidence: its density is known up to a constant only. Where it is flat in
all priors that are compared, the constant is the same in all of them, and the *restricted* evidence, which integrates
the flat directions against Lebesgue measure, tells the priors apart exactly as well.
"""

import math

import jax
import jax.numpy as jnp

from probsoftmax.checks import check_values
from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.linear import Params, shape_of
from probsoftmax.objective import log_joint
from probsoftmax.posterior.coordinates import rank
from probsoftmax.posterior.full import log_determinant_of_root, log_determinant_on_centred
from probsoftmax.posterior.mode import Trouble, find_mode, raise_if, trouble_of
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float, Int
from probsoftmax.solvers.lapack import inverse_of_triangle, solve_triangle
from probsoftmax.solvers.newton import dense_hessian
from probsoftmax.solvers.semidefinite import factorise_exactly

DENSE = 16_384
"""Coefficients up to which the Hessian is factorised: 2 GB a matrix in float64."""
UNCONVERGED = 0.01
"""Nats that the coefficients may be above the optimum: what the evidence is off by then."""


def log_evidence(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, ""]:
    r"""Log evidence :math:`\log p(y \mid X)` of a proper prior, by Laplace's method, in nats.

    Args:
        params: the optimum under this prior, by ``fit_map``: of two priors, compare each at its own.
        data: the n examples it was fitted to.
        prior: positive on every coefficient, the biases too.

    Returns:
        A scalar. Differentiable; through ``fit_map`` as well, so that ``jax.grad`` of the evidence at the refitted
        optimum is exact. When traced, NaN for a prior that is flat somewhere, and for coefficients that are not the
        optimum by more than 0.01 nats.

    Raises:
        ValueError: shapes that do not fit together, or more than 16,384 coefficients; with values, a prior that is
            flat somewhere or coefficients that are not the optimum. The message says what to change.

    References:
        MacKay (1992), The evidence framework applied to classification networks.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0, bias_precision=1.0)
    >>> print(log_evidence(fit_map(data, prior).params, data, prior).round(4))
    -3.8672
    """
    for name in ("precision", "bias_precision"):
        check_values(
            f"prior.{name}",
            getattr(prior, name),
            lambda values: values != 0,
            "a number > 0, as a flat prior has no evidence (give one, or compare priors that are flat on the same "
            "coefficients by log_restricted_evidence)",
        )
    value = log_restricted_evidence(params, data, prior)
    flat = jnp.any(jnp.asarray(prior.precision) == 0) | jnp.any(
        jnp.asarray(prior.bias_precision) == 0
    )
    return jnp.where(flat, jnp.nan, value)


def log_restricted_evidence(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, ""]:
    r"""Log evidence of a prior that may be flat on the biases: what priors are compared by, in nats.

    The biases are integrated against Lebesgue measure over those that sum to 0. The number itself means nothing (it
    depends on the unit of a score), but differences between priors that are flat on the same coefficients are those of
    their evidences. It is ``log_evidence`` if the prior is flat nowhere.

    Args:
        params: the optimum under this prior, by ``fit_map``: of two priors, compare each at its own.
        data: the n examples it was fitted to.
        prior: as a rule positive on the weights and flat on the bias.

    Returns:
        A scalar. Differentiable; through ``fit_map`` as well, so that ``jax.grad`` of the evidence at the refitted
        optimum is exact. When traced, NaN for coefficients that are not the optimum by more than 0.01 nats, for a class
        without examples and with a flat bias, and for collinear features with a flat prior.

    Raises:
        ValueError: shapes that do not fit together, or more than 16,384 coefficients; with values, what is NaN when
            traced. The message says what to change.

    References:
        MacKay (1992), The evidence framework applied to classification networks.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    >>> for precision in (1.0, 10.0, 100.0):
    ...     prior = GaussianPrior(precision)
    ...     print(log_restricted_evidence(fit_map(data, prior).params, data, prior).round(3))
    -2.422
    -2.226
    -2.203
    """
    d, k = shape_of(params)
    if (d + 1) * k > DENSE:
        raise ValueError(
            f"params: expected at most {DENSE} coefficients, got {(d + 1) * k}, whose Hessian would take "
            f"{8e-9 * ((d + 1) * k) ** 2:.0f} GB; use log_restricted_evidence_lanczos"
        )
    value, trouble = _evidence(params, data, GaussianPrior(*map(jnp.asarray, prior)))
    raise_if(trouble)
    return value


@jax.jit
def _evidence(
    params: Params, data: Data, prior: GaussianPrior
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    params, mode = find_mode(params, data, prior)
    matrix = dense_hessian(mode.problem, mode.scores)
    root, lower, singular = factorise_exactly(jax.lax.stop_gradient(matrix))
    slope = jax.lax.stop_gradient(mode.slope).reshape(-1)
    white = solve_triangle(lower, root * slope)
    decrement = 0.5 * jnp.sum(white * white)
    trouble = unconverged(trouble_of(mode, decrement, singular), decrement)
    log_det = log_determinant_on_centred(mode, matrix, log_determinant(matrix))
    value = by_laplace(
        log_joint(params, data, prior), rank(mode.coordinates, params.bias.size), log_det
    )
    # Multiplied, so that the derivatives are NaN as well.
    return value * jnp.where(trouble == 0, 1, jnp.nan), trouble


def by_laplace(
    joint: Float[Array, ""], dimensions: Float[Array, ""], log_det: Float[Array, ""]
) -> Float[Array, ""]:
    """Log p(y, W) + (r log 2 pi - log det H) / 2."""
    return joint + 0.5 * (dimensions * math.log(2 * math.pi) - log_det)


def unconverged(trouble: Int[Array, ""], decrement: Float[Array, ""]) -> Int[Array, ""]:
    """The trouble, or that of coefficients whose objective is further above the optimum than an evidence may be off."""
    astray = (trouble == 0) & ~(decrement <= UNCONVERGED)
    return jnp.where(astray, Trouble.NO_OPTIMUM, trouble)


@jax.custom_jvp
def log_determinant(matrix: Float[Array, "m m"]) -> Float[Array, ""]:
    """Of a positive definite matrix, whatever the units of its variables."""
    root, lower, _ = factorise_exactly(matrix)
    return log_determinant_of_root(root, lower)


@log_determinant.defjvp
def _log_determinant_jvp(primals, tangents):
    """tr(M^-1 dM): one inverse, and no differentiation of the factorisation."""
    (matrix,), (moved,) = primals, tangents
    root, lower, _ = factorise_exactly(matrix)
    inverse = inverse_of_triangle(lower) * root[None, :]
    inverse = jnp.matmul(inverse.T, inverse, precision=HIGHEST)
    return log_determinant_of_root(root, lower), jnp.sum(inverse * moved)
