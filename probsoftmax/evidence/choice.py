r"""The prior chosen by the evidence: the precisions under which the labels, not their best fit, are most probable.

In the logarithms of the precisions the evidence is climbed by a quasi-Newton method. Each trial is a fit of its own,
started from the last, and the gradient goes through it: by the implicit function theorem it has the motion of the
optimum with the precisions, which the fixed-point iterations of MacKay leave out. All is one compiled program.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from probsoftmax.checks import check_broadcasts, check_shape, check_values
from probsoftmax.curvature import HIGHEST
from probsoftmax.data import Data
from probsoftmax.evidence.dense import log_restricted_evidence
from probsoftmax.fit import Fit, fit_map
from probsoftmax.likelihood import without_absent_rows
from probsoftmax.linear import Params
from probsoftmax.numerics import compute_dtype
from probsoftmax.prior import GaussianPrior
from probsoftmax.solvers.status import Status

MAX_TRIALS = 200
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
        precision stops where the prior is :math:`\epsilon^{-1/2}` times as stiff as the data can be (1e8; in float32:
        3e3), the weights being 0 to half of the digits. It stops as far below, too.

    Raises:
        ValueError: shapes that do not fit together, more than 16,384 coefficients, a precision that is 0, groups that
            are not one integer >= 0 a feature.

    References:
        MacKay (1992), The evidence framework applied to classification networks. Tipping (2001), Sparse Bayesian
        learning and the relevance vector machine.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[-2.0], [-1.0], [-1.0], [1.0], [1.0], [2.0]], [0, 0, 1, 0, 1, 1])
    >>> prior, fit, log_evidence = fit_evidence(data, GaussianPrior(1.0))
    >>> print(prior.precision.round())
    8.0
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
    inverse: Float[Array, "h h"]
    """Of minus the second derivatives of the evidence, as learnt so far."""
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
    lowest, highest = _range(data, prior, start, groups)
    tolerance = 2 * jnp.finfo(start.dtype).eps ** (1 / 3)

    def inside(place: Float[Array, " h"], slope: Float[Array, " h"]) -> Float[Array, " h"]:
        """The slope without what leads out of the range."""
        out = ((place >= highest) & (slope > 0)) | ((place <= lowest) & (slope < 0))
        return jnp.where(out, 0, slope)

    def climb(state: _Climb) -> _Climb:
        free = inside(state.place, state.slope)
        towards = jnp.where(free == 0, 0, jnp.matmul(state.inverse, free, precision=HIGHEST))
        towards = jnp.where(jnp.sum(towards * free) > 0, towards, free)
        towards = jnp.clip(state.length * towards, -STRIDE, STRIDE)
        place = jnp.clip(state.place + towards, lowest, highest)
        (value, fit), slope = evaluate(place, state.fit.params)
        moved = place - state.place
        # Near the top the gain is lost in the rounding of the evidence, and the slope still tells.
        noise = 100 * jnp.finfo(value.dtype).eps * (1 + jnp.abs(value))
        flatter = jnp.max(jnp.abs(inside(place, slope))) < jnp.max(jnp.abs(free))
        gain = value - state.value
        enough = gain >= SUFFICIENT * jnp.sum(moved * state.slope)
        taken = jnp.all(jnp.isfinite(slope)) & (enough | ((gain >= -noise) & flatter))
        inverse = jnp.where(
            state.trials == 0,
            jnp.diag(STRIDE / jnp.maximum(jnp.abs(slope), 1)),
            _learn(state.inverse, moved, state.slope - slope),
        )
        after = _Climb(
            place,
            value,
            slope,
            inverse,
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
        jnp.zeros((start.shape[0], start.shape[0]), start.dtype),
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


def _learn(
    inverse: Float[Array, "h h"], moved: Float[Array, " h"], change: Float[Array, " h"]
) -> Float[Array, "h h"]:
    """The update of Broyden, Fletcher, Goldfarb and Shanno; none where the evidence curves upwards."""
    along = jnp.sum(moved * change)
    curved = along > 1e-10 * jnp.sum(moved * moved)
    rho = jnp.where(curved, 1 / jnp.where(curved, along, 1), 0)
    project = jnp.eye(moved.shape[0], dtype=moved.dtype) - rho * moved[:, None] * change[None, :]
    updated = jnp.matmul(
        project, jnp.matmul(inverse, project.T, precision=HIGHEST), precision=HIGHEST
    )
    return jnp.where(curved, updated + rho * moved[:, None] * moved[None, :], inverse)


def _range(
    data: Data, prior: GaussianPrior, start: Float[Array, " h"], groups: tuple[int, ...] | None
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
    (d,), k = stiffness.shape, data.num_classes
    entries = np.arange(start.shape[0])
    entries = (
        entries.reshape(jnp.shape(prior.precision)) if groups is None else np.array([groups]).T
    )
    entries = np.broadcast_to(entries, (d, k))
    largest = jnp.zeros_like(start).at[entries].max(jnp.broadcast_to(stiffness[:, None], (d, k)))
    # Constant features: nothing depends on the precision, which stays where it is.
    middle = jnp.where(largest > 0, jnp.log(jnp.where(largest > 0, largest, 1)), start)
    reach = -0.5 * jnp.log(jnp.finfo(start.dtype).eps)
    return jnp.minimum(middle - reach, start), jnp.maximum(middle + reach, start)
