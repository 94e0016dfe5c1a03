r"""The Laplace approximation in Kronecker axes: a class factor, a feature factor, and the exact diagonal between them.

The Hessian :math:`\sum_i s_i S_i \otimes \tilde x_i \tilde x_i^\top`, :math:`S_i = \mathrm{diag}(p_i) - p_i p_i^\top`,
is a sum of products. The eigenvectors U of :math:`\sum_i s_i S_i` over the classes and V of
:math:`\sum_i s_i\,\mathrm{tr}(S_i)\, \tilde x_i \tilde x_i^\top` over the features, measured by the prior, make it
nearly diagonal, and its diagonal in those axes is not approximated at all:

.. math:: \lambda_{ab} = \sum_i s_i\, (u_a^\top S_i u_a)\, (v_b^\top \tilde x_i)^2
          + \sum_{cj} \tau_{cj} u_{ca}^2 v_{jb}^2 .

Nothing is approximated where the rows agree on their S up to a factor: two classes, one row, or equal probabilities
(and a prior that is the same for all classes).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.posterior.coordinates import log_volume
from probsoftmax.posterior.gaussian import Posterior
from probsoftmax.posterior.mode import Mode, Trouble, find_mode, raise_if, trouble_of
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.lapack import eigh
from probsoftmax.solvers.rows import spread_of_classes

FLAT = 1e-6
"""Smallest precision of a feature, in units of the largest, by which the axes are measured."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KroneckerPosterior(Posterior):
    """A Gaussian that is independent along Kronecker axes: memory for k^2 + m^2 + k m numbers."""

    classes: Float[Array, "k k"]
    """U, the shift of all classes last."""
    axes: Float[Array, "m m"]
    """V."""
    measure: Float[Array, " m"]
    """T^(1/2), by which the prior measures the features: the axes are those of theta T^(1/2)."""
    precision: Float[Array, "k m"]
    """lambda; 0 along the shifts of all classes that mean nothing, which have no part in the posterior."""

    @property
    def numbers_per_row(self) -> int:
        """A handful of vectors."""
        return 8 * (self.classes.shape[0] + self.axes.shape[0])

    def colour(self, noise: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """U (noise / sqrt(lambda)) V^T T^(-1/2)."""
        return self._off_the_axes(noise * jnp.sqrt(self._inverse()))

    def squared_distance(self, deviation: Float[Array, "k m"]) -> Float[Array, ""]:
        """Sum of lambda times the squares along the axes."""
        along = _times(self.classes.T, _times(deviation * self.measure[None, :], self.axes))
        return jnp.sum(self.precision * along * along)

    def covariance_times(self, slope: Float[Array, "k m"]) -> Float[Array, "k m"]:
        """U ((U^T g T^(-1/2) V) / lambda) V^T T^(-1/2)."""
        along = _times(self.classes.T, _times(slope / self.measure[None, :], self.axes))
        return self._off_the_axes(self._inverse() * along)

    def variances(self) -> Float[Array, "k m"]:
        """U^2 (1 / lambda) (V^2)^T / T."""
        along = _times(self._inverse(), (self.axes**2).T)
        return _times(self.classes**2, along) / self.measure[None, :] ** 2

    def score_covariance(self, row: Float[Array, " m"]) -> Float[Array, "k k"]:
        """U diag(omega) U^T."""
        return _times(self.classes * self._spectrum(row)[None, :], self.classes.T)

    def score_variance(self, row: Float[Array, " m"]) -> Float[Array, " k"]:
        """U^2 omega."""
        return _times(self.classes**2, self._spectrum(row))

    def score_covariance_times(
        self, row: Float[Array, " m"], vector: Float[Array, " k"]
    ) -> Float[Array, " k"]:
        """U (omega (U^T v))."""
        return _times(self.classes, self._spectrum(row) * _times(self.classes.T, vector))

    def _off_the_axes(self, along: Float[Array, "k m"]) -> Float[Array, "k m"]:
        return _times(self.classes, _times(along, self.axes.T)) / self.measure[None, :]

    def _inverse(self) -> Float[Array, "k m"]:
        null = self.precision == 0
        return jnp.where(null, 0, 1 / jnp.where(null, 1, self.precision))

    def _spectrum(self, row: Float[Array, " m"]) -> Float[Array, " k"]:
        """Omega: variances of the scores along the axes of the classes, but for the last, the shift of them all."""
        return _times(self._inverse(), _times(self.axes.T, row / self.measure) ** 2).at[-1].set(0)


def laplace_kronecker(params: Params, data: Data, prior: GaussianPrior) -> KroneckerPosterior:
    r"""Laplace approximation of the posterior in Kronecker axes, for models whose Hessian is too large to hold.

    Costs :math:`n k d + k^3 + d^3` multiplications and memory for :math:`k^2 + d^2 + kd` numbers besides the scores.
    Equal to ``laplace`` for two classes; in general its variances are right on average and not one by one.

    Args:
        params: the optimum, by ``fit_map`` or ``fit_mle``.
        data: the n examples it was fitted to.
        prior: the prior it was fitted under: positive on all weights, or flat on all coefficients.

    Returns:
        A posterior, class-centred where the prior is flat and NaN when traced where there is none, as by ``laplace``.

    Raises:
        ValueError: shapes that do not fit together; with values, no posterior: the message says what to change.

    References:
        George, Laurent, Bouthillier, Ballas, Vincent (2018), Fast approximate natural gradient descent in a
        Kronecker-factored eigenbasis.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_map
    >>> data, prior = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]), GaussianPrior(1.0)
    >>> posterior = laplace_kronecker(fit_map(data, prior).params, data, prior)
    >>> print(posterior.log_determinant.round(4))  # two classes: that of laplace
    1.7205
    """
    posterior, trouble = _laplace(params, data, GaussianPrior(*map(jnp.asarray, prior)))
    raise_if(trouble)
    return posterior


@jax.jit
def _laplace(
    params: Params, data: Data, prior: GaussianPrior
) -> tuple[KroneckerPosterior, Int[Array, ""]]:
    params, mode = find_mode(params, data, prior)
    found = kronecker_axes(mode)
    trouble, _ = trouble_along(mode, found)
    valid = trouble == 0
    posterior = KroneckerPosterior(
        params,
        mode.coordinates,
        jnp.where(valid, log_determinant_along(mode, found), jnp.nan),
        found.classes,
        found.axes,
        found.measure,
        jnp.where(valid, found.precision, jnp.nan),
    )
    return posterior, trouble


class KroneckerAxes(NamedTuple):
    """Axes in which the Hessian is nearly diagonal, and its diagonal."""

    classes: Float[Array, "k k"]
    axes: Float[Array, "m m"]
    measure: Float[Array, " m"]
    precision: Float[Array, "k m"]
    penalised: Bool[Array, "k m"]
    """Where the prior has a part in the precision."""
    null: Bool[Array, "k m"]
    """Shifts of all classes along which nothing changes."""


def kronecker_axes(mode: Mode) -> KroneckerAxes:
    """Eigenvectors of the two factors, and the diagonal of the Hessian in them."""
    problem, flat = mode.problem, mode.coordinates.flat
    k, m = problem.shape
    p, q = softmax_and_complement(mode.scores, (0,))
    spread = spread_of_classes(problem, p)
    # The shift of all classes has no curvature. Lifted above the others it is an axis of its own, and the last.
    lift = 1 + 2 * jnp.trace(spread)
    classes = eigh(spread + lift / k)[1].at[:, -1].set(k**-0.5)

    tau = jnp.mean(problem.precision, axis=0)
    largest = jnp.max(tau)
    tau = jnp.where(largest > 0, jnp.maximum(tau, FLAT * largest), 1)
    tau = jnp.where(flat[-1], tau.at[-1].set(1), tau)
    measure = jnp.sqrt(tau)
    rows = problem.features.T / measure[None, :]
    weighted = (problem.weights * jnp.sum(p * q, axis=0))[:, None] * rows
    gram = jnp.matmul(weighted.T, rows, precision=HIGHEST)
    # A flat bias is an axis of its own: the features are centred by the same weights, so only rounding is dropped.
    bias = jnp.arange(m) == m - 1
    apart = flat[-1] & (bias[:, None] != bias[None, :])
    axes = eigh(jnp.where(apart, 0, gram))[1]

    along = jnp.matmul(rows, axes, precision=HIGHEST) ** 2
    curvature = _curvature_along(p, classes) * problem.weights[None, :]
    squared = (axes / measure[:, None]) ** 2
    from_prior = _times((classes**2).T, _times(problem.precision, squared))
    # Along the shifts there is no curvature but that of the prior.
    shift = (jnp.arange(k) == k - 1)[:, None]
    from_data = jnp.where(shift, 0, jnp.matmul(curvature, along, precision=HIGHEST))
    on_bias = jnp.abs(axes[-1]) > 0.5
    null = shift & jnp.where(jnp.all(flat), True, flat[-1] & on_bias)[None, :]
    from_prior = jnp.where(null, 0, from_prior)
    return KroneckerAxes(classes, axes, measure, from_data + from_prior, from_prior > 0, null)


def _curvature_along(p: Float[Array, "k n"], classes: Float[Array, "k k"]) -> Float[Array, "k n"]:
    """Variance of each axis' entries under the probabilities of each row: u^T S u.

    About the entry u* of the most probable class, so that where it has all but a q of the probability, all terms are
    of the size of q, and do not cancel.
    """
    k = p.shape[0]
    top = jnp.argmax(p, axis=0)
    others = jnp.where(jnp.arange(k)[:, None] == top[None, :], 0, p)
    q, own = jnp.sum(others, axis=0)[None, :], classes[top].T
    first = _times(classes.T, others)
    second = _times((classes**2).T, others) - 2 * own * first + q * own * own
    return jnp.maximum(second - (first - q * own) ** 2, 0)


def trouble_along(mode: Mode, found: KroneckerAxes) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Why there is no posterior, or none; and half the squared Newton decrement, in these axes."""
    along = _times(found.classes.T, _times(mode.slope / found.measure[None, :], found.axes))
    safe = jnp.where(found.null, 1, found.precision)
    decrement = 0.5 * jnp.sum(jnp.where(found.null, 0, along * along / safe))
    # Without curvature: nothing from the prior, and from the data what rounding leaves.
    noise = 10 * jnp.finfo(safe.dtype).eps * jnp.max(found.precision, axis=1, keepdims=True)
    least = jnp.where(found.penalised, 0, noise)
    singular = jnp.any(~found.null & ~(found.precision > least))
    trouble = trouble_of(mode, decrement, singular)
    flat = mode.coordinates.flat
    partly = jnp.any(flat[:-1]) & ~jnp.all(flat)
    return jnp.where(partly & (trouble == 0), Trouble.PARTLY_FLAT, trouble), decrement


def log_determinant_along(mode: Mode, found: KroneckerAxes) -> Float[Array, ""]:
    """Log-determinant of the approximation, in the caller's units, on the space that the posterior lives on."""
    k = mode.problem.shape[0]
    precision = jnp.where(found.null, 1, found.precision)
    stretch = 2 * k * jnp.sum(jnp.log(found.measure)) - 2 * log_volume(mode.coordinates, k)
    return jnp.sum(jnp.log(precision)) + stretch


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)
