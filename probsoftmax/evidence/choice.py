r"""The prior chosen by the evidence: the precisions under which the labels, not their best fit, are most probable.

In the logarithms of the precisions the evidence is climbed by Newton's method, with the curvature that it would have
if the log-likelihood were a quadratic. Each trial is a fit of its own, started from the last, and the gradient goes
through it: by the implicit function theorem it has the motion of the optimum with the precisions, which the fixed-point
iterations of MacKay leave out. A curvature that is only learnt from the slopes takes more trials than there are
precisions. All is one compiled program.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from probsoftmax.checks import check_broadcasts, check_shape, check_values
from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.evidence.dense import log_restricted_evidence
from probsoftmax.fit import Fit, fit_map
from probsoftmax.likelihood import without_absent_rows
from probsoftmax.linear import Params
from probsoftmax.numerics import compute_dtype
from probsoftmax.posterior.full import FullPosterior, laplace
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.lapack import eigh
from probsoftmax.solvers.status import Status

MAX_TRIALS = 400
STRIDE = 2.0
"""Largest change of a logarithm of a precision in one step: a factor of 7."""
SUFFICIENT = 1e-4
"""Share of the gain that a step promises which it must bring."""


class EvidenceFit(NamedTuple):
    """A prior chosen by its evidence, and the fit under it."""

    prior: GaussianPrior
    fit: Fit
    """Its status is ``MAX_STEPS`` too where the precisions did not settle."""
    log_evidence: Float[Array, ""]
    """That of ``log_evidence`` if the bias has a prior, else of ``log_restricted_evidence``."""


def fit_evidence(
    data: Data, prior: GaussianPrior, *, groups: Int[ArrayLike, " d"] | None = None
) -> EvidenceFit:
    r"""Fit under the precisions of the greatest evidence.

    Every entry of ``prior.precision`` is chosen on its own: one number, ``(k,)`` by class, ``(d, 1)`` by feature
    (automatic relevance determination); or, with ``groups``, one for the features of each group. The greatest that is
    reached from where it starts: there may be others.

    Args:
        data: n examples.
        prior: its precision, > 0, is where to start, its shape what to choose; its mean and ``bias_precision`` stay.
        groups: the group 0, 1, ... of each feature, known (not traced); ``prior.precision`` is one number then.

    Returns:
        The prior (its precision in the shape given, or ``(d, 1)`` with groups), the fit and the log evidence. The
        derivative of the evidence in the logarithm of a precision is below 1.3e-5 (in float32: 1e-2), but for a
        precision at an end of its range: where features do not matter the evidence grows without end, and the
        precision stops where that derivative is so small, or at the latest where the prior is
        :math:`\epsilon^{-1/2}` times as stiff as the data can be (1e8; in float32: 3e3), the weights being 0 to half of
        the digits. It stops as far below, too. Of a constant feature the evidence says nothing where the bias is flat:
        its precision stays where it started.

    Raises:
        ValueError: shapes that do not fit together, more than 16,384 coefficients, a precision that is 0, groups that
            are not one integer >= 0 a feature.

    References:
        MacKay (1992), The evidence framework applied to classification networks. Tipping (2001), Sparse Bayesian
        learning and the relevance vector machine.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[-2.0], [-1.0], [-1.0], [1.0], [1.0], [2.0]], [0, 0, 1, 0, 1, 1])
    >>> prior, fit, log_evidence = fit_evidence(data, GaussianPrior(1.0))
    >>> print(log_evidence.round(2))
    -3.75
    """
    dtype = compute_dtype(data.features.dtype)
    d, k = data.features.shape[1], data.num_classes
    check_broadcasts("prior.precision", prior.precision, (d, k), "(that of the coefficients)")
    check_values(
        "prior.precision", prior.precision, lambda values: values > 0, "a number > 0 to start from"
    )
    prior = GaussianPrior(*(jnp.asarray(part, dtype) for part in prior))
    return _fit_evidence(data, prior, _group_of_entries(groups, jnp.shape(prior.precision), d))


def _group_of_entries(
    groups: ArrayLike | None, shape: tuple[int, ...], d: int
) -> tuple[int, ...] | None:
    """Static and hashable: a program is compiled for each partition of the features."""
    if groups is None:
        return None
    values = np.asarray(groups)
    check_shape("groups", values, (d,), "(features)")
    if shape != ():
        raise ValueError(f"prior.precision: expected one number, with groups, got shape {shape}")
    check_values("groups", values, lambda v: (v >= 0) & (v == np.floor(v)), "an integer >= 0")
    return tuple(int(value) for value in values)


class _Climb(NamedTuple):
    place: Float[Array, " h"]
    """Logarithms of the precisions."""
    value: Float[Array, ""]
    slope: Float[Array, " h"]
    curvature: Float[Array, "h h"]
    """Minus the second derivatives, if the log-likelihood were a quadratic."""
    moved: Float[Array, " h"]
    """By the last step."""
    change: Float[Array, " h"]
    """Of minus the slope along it."""
    fit: Fit
    length: Float[Array, ""]
    trials: Int[Array, ""]
    ended: Bool[Array, ""]


@partial(jax.jit, static_argnames="groups")
def _fit_evidence(data: Data, prior: GaussianPrior, groups: tuple[int, ...] | None) -> EvidenceFit:
    shape = jnp.shape(prior.precision)

    def prior_at(place: Float[Array, " h"]) -> GaussianPrior:
        precision = jnp.exp(place)
        precision = precision.reshape(shape) if groups is None else precision[np.array([groups]).T]
        return GaussianPrior(precision, prior.bias_precision, prior.mean)

    def evidence_at(place: Float[Array, " h"], init: Params | None) -> tuple[Array, Fit]:
        fit = fit_map(data, prior_at(place), init=init)
        return log_restricted_evidence(fit.params, data, prior_at(place)), fit

    evaluate = jax.value_and_grad(evidence_at, has_aux=True)
    start = jnp.log(prior.precision).reshape(-1)
    start = start if groups is None else jnp.full(max(groups) + 1, start[0])
    entries = np.arange(start.shape[0])
    entries = entries.reshape(shape) if groups is None else np.array([groups]).T
    entries = np.broadcast_to(entries, (data.features.shape[1], data.num_classes))
    lowest, highest = _range(data, prior, start, entries)
    tolerance = 2 * float(jnp.finfo(start.dtype).eps) ** (1 / 3)

    def inside(place: Float[Array, " h"], slope: Float[Array, " h"]) -> Float[Array, " h"]:
        """The slope without what leads out of the range."""
        out = ((place >= highest) & (slope > 0)) | ((place <= lowest) & (slope < 0))
        return jnp.where(out, 0, slope)

    def climb(state: _Climb) -> _Climb:
        free = inside(state.place, state.slope)
        towards = _newton(state, free, tolerance)
        towards = jnp.where(jnp.sum(towards * free) > 0, towards, free)
        towards = jnp.clip(state.length * towards, -STRIDE, STRIDE)
        place = jnp.clip(state.place + towards, lowest, highest)
        (value, fit), slope = evaluate(place, state.fit.params)
        prior = prior_at(place)
        curvature = _curvature(laplace(fit.params, data, prior), prior, entries, start.size)
        moved = place - state.place
        # Near the top the gain is lost in the rounding of the evidence, and the slope still tells.
        noise = 100 * jnp.finfo(value.dtype).eps * (1 + jnp.abs(value))
        flatter = jnp.max(jnp.abs(inside(place, slope))) < jnp.max(jnp.abs(free))
        gain = value - state.value
        enough = gain >= SUFFICIENT * jnp.sum(moved * state.slope)
        taken = jnp.all(jnp.isfinite(slope)) & (enough | ((gain >= -noise) & flatter))
        after = _Climb(
            place,
            value,
            slope,
            curvature,
            moved,
            state.slope - slope,
            fit,
            jnp.ones_like(state.length),
            state.trials,
            jnp.max(jnp.abs(inside(place, slope))) <= tolerance,
        )
        length = 0.25 * state.length
        before = state._replace(length=length, ended=length < 1e-6)
        chosen = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, before)
        return chosen._replace(trials=state.trials + 1)

    # The first evaluation is a trial of length 0 from nothing: one program does them all.
    unknown = jax.eval_shape(lambda place: evaluate(place, None)[0][1], start)
    nothing = jnp.full((), -jnp.inf, start.dtype)
    state = _Climb(
        start,
        nothing,
        jnp.zeros_like(start),
        jnp.eye(start.size, dtype=start.dtype),
        jnp.zeros_like(start),
        jnp.zeros_like(start),
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), unknown),
        jnp.ones_like(nothing),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
    )
    state = jax.lax.while_loop(
        lambda state: ~state.ended & (state.trials < MAX_TRIALS), climb, state
    )
    settled = jnp.max(jnp.abs(inside(state.place, state.slope))) <= tolerance
    settled |= state.fit.status != Status.CONVERGED
    status = jnp.where(settled, state.fit.status, Status.MAX_STEPS).astype(state.fit.status.dtype)
    return EvidenceFit(prior_at(state.place), state.fit._replace(status=status), state.value)


def _newton(state: _Climb, free: Float[Array, " h"], least: float) -> Float[Array, " h"]:
    r"""The step to where the slope is 0, by the curvature C as the last step has corrected it.

    The evidence is not concave, so C is taken by the magnitudes of its eigenvalues: where it curves upwards, the slope
    is followed as far as the other way round it would lead to 0. The correction is one update of Broyden, Fletcher,
    Goldfarb and Shanno; more of them, or those of the symmetric rank one, were no faster on digits, whole or pooled.
    Precisions at an end of their range have no part in it.
    """
    fixed = free == 0
    matrix = jnp.where(
        fixed[:, None] | fixed[None, :], jnp.eye(free.size, dtype=free.dtype), state.curvature
    )
    sizes, axes = eigh(matrix)

    def inverse(slope: Float[Array, " h"]) -> Float[Array, " h"]:
        along = jnp.matmul(slope, axes, precision=HIGHEST)
        return jnp.matmul(axes, along / jnp.maximum(jnp.abs(sizes), least), precision=HIGHEST)

    along = jnp.sum(state.moved * state.change)
    curved = along > 1e-10 * jnp.sum(state.moved * state.moved)
    rho = jnp.where(curved, 1 / jnp.where(curved, along, 1), 0)
    share = rho * jnp.sum(state.moved * free)
    step = inverse(free - share * state.change)
    step += state.moved * (share - rho * jnp.sum(state.change * step))
    return jnp.where(fixed, 0, step)


def _curvature(
    posterior: FullPosterior, prior: GaussianPrior, entries: Int[np.ndarray, "d k"], size: int
) -> Float[Array, "h h"]:
    r"""Minus the second derivatives of the evidence in the log precisions, if the log-likelihood were a quadratic.

    With the covariance :math:`\Sigma` of the coefficients a and b, of the groups g and h, and w measured from the mean
    of the prior,

    .. math:: C_{gh} = \delta_{gh} \sum_a \tfrac12 \tau_a (w_a^2 + \Sigma_{aa})
              - \sum_{ab} \tau_a \tau_b \Sigma_{ab} (\tfrac12 \Sigma_{ab} + w_a w_b).
    """
    scale = posterior.coordinates.scale[:, None]
    tau = (jnp.broadcast_to(prior.precision, entries.shape) * scale**2).T.reshape(-1)
    w = ((posterior.mean.weights - prior.mean) / scale).T.reshape(-1)
    group = entries.T.reshape(-1)
    k, m = posterior.mean.bias.shape[0], scale.shape[0] + 1
    root = posterior.inverse_root.reshape(-1, k, m)[:, :, :-1].reshape(-1, tau.size)
    covariance = jnp.matmul(root.T, root, precision=HIGHEST)
    own = jnp.zeros(size, tau.dtype).at[group].add(0.5 * tau * (w**2 + jnp.diagonal(covariance)))
    pairs = covariance * (0.5 * covariance + w[:, None] * w[None, :])
    pairs = tau[:, None] * tau[None, :] * pairs
    by_row = jnp.zeros((size, tau.size), tau.dtype).at[group].add(pairs)
    return jnp.diag(own) - jnp.zeros((size, size), tau.dtype).at[group].add(by_row.T)


def _range(
    data: Data, prior: GaussianPrior, start: Float[Array, " h"], entries: Int[np.ndarray, "d k"]
) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    r"""Logarithms of the least and the greatest precision of each group.

    No curvature of the likelihood in a weight exceeds :math:`\tfrac14 \sum_i s_i x_{ij}^2`, with x centred where the
    bias is flat: a prior so many times as stiff leaves nothing of the weight, one so many times as loose nothing of the
    prior.
    """
    data = without_absent_rows(data)
    x, s = data.features.astype(start.dtype), data.weights.astype(start.dtype)
    mean = jnp.matmul(s, x, precision=HIGHEST) / jnp.sum(s)
    mean = jnp.where(jnp.all(prior.bias_precision == 0), mean, 0)
    stiffness = jnp.sum(s[:, None] * (x - mean[None, :]) ** 2, axis=0) / 4
    spread = jnp.broadcast_to(stiffness[:, None], entries.shape)
    largest = jnp.zeros_like(start).at[entries].max(spread)
    # Constant features: nothing depends on the precision, which stays where it is.
    matters = largest > 0
    middle = jnp.log(jnp.where(matters, largest, 1))
    reach = -0.5 * jnp.log(jnp.finfo(start.dtype).eps)
    lowest = jnp.where(matters, jnp.minimum(middle - reach, start), start)
    return lowest, jnp.where(matters, jnp.maximum(middle + reach, start), start)
