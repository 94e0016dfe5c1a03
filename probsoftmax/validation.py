r"""Cross-validation: how well each prior precision predicts rows that the fit has not seen.

A fold is held out by a weight of 0, so all folds are fits of the same X by the same program, each of them a whole path
of precisions. (Of small data on a CPU it is left out.)
"""

import operator
from dataclasses import replace
from functools import partial
from typing import NamedTuple, SupportsIndex, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from probsoftmax.checks import check_integer, check_shape, check_values
from probsoftmax.cores import map_on_cores, small_on_one_cpu
from probsoftmax.data import Data
from probsoftmax.fit import Fit
from probsoftmax.likelihood import cross_entropy_of_labels, without_absent_rows
from probsoftmax.linear import Params, logits
from probsoftmax.numerics import compute_dtype
from probsoftmax.path import fit_path
from probsoftmax.prior import GaussianPrior, has_flat_bias, if_positive, traceable, value_of
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.lbfgs import LBFGS
from probsoftmax.solvers.row_blocks import sum_over_rows


class CrossValidation(NamedTuple):
    """What the held-out rows say of every precision. Arrays, so that it vmaps; precisions in the caller's order."""

    precisions: Float[Array, " l"]
    log_loss: Float[Array, "folds l"]
    """Mean of minus the log-probability of the label over the held-out rows, in nats; NaN for a fold without weight.
    inf where the held-out rows have a class that no other row has."""
    accuracy: Float[Array, "folds l"]
    """Share of the held-out rows whose most probable class is right."""
    weight: Float[Array, " folds"]
    """Sum of the weights of the held-out rows: what a fold counts in the means."""
    mean_log_loss: Float[Array, " l"]
    log_loss_error: Float[Array, " l"]
    """Standard error of ``mean_log_loss``, by the spread of the folds. Folds share rows, so it is a rough one."""
    mean_accuracy: Float[Array, " l"]
    accuracy_error: Float[Array, " l"]
    best_precision: Float[Array, ""]
    """The precision of the least mean log loss; of equal ones the largest. NaN where no mean is finite."""
    best_precision_one_se: Float[Array, ""]
    """The largest precision whose mean log loss is within one standard error of the least."""
    gap: Float[Array, "folds l"]
    """At most so many nats is a fold's fit above its own minimum: see ``Fit``."""
    passes: Int[Array, "folds l"]
    status: Int[Array, "folds l"]
    """How each fit ended: a ``Status``."""


def cross_validate(
    data: Data,
    precisions: Float[Array, " l"],
    *,
    folds: int | Int[ArrayLike, " n"] = 5,
    key: Array | None = None,
    prior: GaussianPrior | None = None,
    solver: LBFGS | None = None,
) -> CrossValidation:
    r"""Held-out log loss and accuracy for every precision of a sweep.

    Precisions are on the scale of the sum over the rows of a fit, and a fold's fit has fewer rows: at the same
    precision the prior weighs a little more in it than in the fit of all rows.

    Args:
        data: n examples.
        precisions: l of them, > 0, in any order.
        folds: how many, at least 2: rows are dealt by :func:`stratified_folds`. Or the fold of each row, ``(n,)``
            integers 0, 1, ... with their values known (not traced); a row at -1 is in every fit and never held out.
        key: a random key; not used if the fold of each row is given.
        prior: what the precisions multiply, as in ``fit_path``.
        solver: that of ``fit_path``; its tolerance is met by every fit on its own.

    Returns:
        A loss, an accuracy and a certificate for every fold and precision, their means, and the best precision by the
        least mean and by the one-standard-error rule.

    Raises:
        ValueError: fewer than 2 folds or more than there are rows, a fold without a row, no key, no precision or one
            that is not positive.
        TypeError: folds that are not integers, or are traced.

    References:
        Hastie, Tibshirani, Friedman (2009), The Elements of Statistical Learning, section 7.10.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], [0, 0, 1, 0, 1, 1])
    >>> found = cross_validate(data, jnp.array([0.01, 1.0, 100.0]), folds=3, key=jax.random.key(0))
    >>> found.log_loss.shape
    (3, 3)
    """
    dtype = compute_dtype(data.features.dtype)
    precisions = jnp.asarray(precisions, dtype)
    check_shape("precisions", precisions, (None,), "(one for each fit)")
    if precisions.size == 0:
        raise ValueError("precisions: expected at least one, got none")
    check_values(
        "precisions", precisions, lambda p: (p > 0) & np.isfinite(p), "a finite number > 0"
    )
    fold, count = _folds(data, folds, key)
    prior = traceable(GaussianPrior() if prior is None else prior, dtype)
    known = cast(Array, if_positive(precisions, dtype))
    given = jax.tree.map(jnp.asarray, _Given(data, known, prior, fold))
    # Each fold to its own end. All at once under vmap wait at every step for the slowest: a fifth longer on digits on a
    # CPU. Starting a fold from the path of all rows, moved by what the two differed so far, saves passes at strong
    # priors and loses them where classes separate (digits, 20 precisions: 1154 and 255 for the other path, instead of
    # 1084); the better of both starts at each precision takes 946, still not worth 255.
    kept = fold.size
    if small_on_one_cpu(given):
        # A copy of the others costs less than to read the rows of a fold in every pass.
        sizes = np.bincount(np.asarray(fold) + 1, minlength=count + 1)[1:]
        kept -= int(sizes.min())
    weight, predicted, fits = map_on_cores(_path_without, given, count, _How(solver, kept))
    return _summarise(precisions, weight, predicted, fits)


def stratified_folds(data: Data, folds: int, key: Array) -> Int[Array, " n"]:
    """Deals the rows of each class to folds at random, like cards.

    Args:
        data: n examples. A row with label probabilities goes with its most probable class; rows of weight 0 are dealt
            on their own, so that they disturb no balance.
        folds: how many, at least 2 and at most n; static.
        key: a random key.

    Returns:
        The fold 0..folds-1 of each row, ``(n,)``. In any two folds the numbers of rows of one class, and the numbers of
        all rows, differ by at most 1.

    Raises:
        ValueError: fewer than 2 folds, or more than rows.

    >>> from probsoftmax.data import make_data
    >>> data = make_data(jnp.zeros((6, 1)), [0, 0, 1, 1, 1, 1])
    >>> fold = stratified_folds(data, 2, jax.random.key(0))
    >>> print(jnp.sum(fold[:2] == 0), jnp.sum(fold[2:] == 0))
    1 2
    """
    n = data.features.shape[0]
    if not 2 <= folds <= n:
        raise ValueError(f"folds: expected 2 to {n}, the number of rows, got {folds}")
    labels = data.labels if data.labels.ndim == 1 else jnp.argmax(data.labels, axis=1)
    group = jnp.where(data.weights == 0, data.num_classes, labels)
    shuffled = jax.random.permutation(key, n)
    order = shuffled[jnp.argsort(group[shuffled], stable=True)]
    # Class after class around the table: neither a class nor all rows can be more than one apart.
    return jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32) % folds)


def _folds(data: Data, folds: ArrayLike, key: Array | None) -> tuple[Int[Array, " n"], int]:
    """The fold of each row, and how many there are: a static number."""
    if isinstance(folds, jax.core.Tracer):
        raise TypeError("folds: expected a number or an array with values, got a traced array")
    if jnp.ndim(folds) == 0:
        count = operator.index(cast(SupportsIndex, folds))
        if key is None:
            raise ValueError("key: expected a random key to deal the rows with, got None")
        return stratified_folds(data, count, key), count
    check_integer("folds", folds)
    check_shape("folds", folds, (data.features.shape[0],), "(the fold of each row)")
    fold = np.asarray(folds)
    check_values("folds", fold, lambda f: f >= -1, "a fold 0, 1, ... or -1")
    count = int(fold.max()) + 1
    if count < 2:
        raise ValueError(f"folds: expected at least 2, got {count}")
    check_values(
        "folds", np.bincount(fold[fold >= 0]), lambda rows: rows > 0, "a row in every fold"
    )
    return jnp.asarray(fold, jnp.int32), count


class _Given(NamedTuple):
    """What the fits of all folds share."""

    data: Data
    precisions: Float[Array, " l"]
    prior: GaussianPrior
    fold: Int[Array, " n"]


class _How(NamedTuple):
    """What is static."""

    solver: LBFGS | None
    kept: int
    """Of so many rows is a copy made for the fits of a fold; of none if these are all."""


@partial(jax.jit, static_argnames="how")
def _path_without(
    given: _Given, number: Int[Array, ""], how: _How
) -> tuple[Float[Array, ""], "_Predicted", Fit]:
    """Of one fold: its weight, what the fits without it say of it, and the fits but for their coefficients."""
    data, prior = without_absent_rows(given.data), given.prior
    precisions = value_of(given.precisions)
    row_block = None if how.solver is None else how.solver.row_block
    held = given.fold == number
    rest = replace(data, weights=jnp.where(held, 0, data.weights))
    if how.kept < held.size:
        order = jnp.argsort(held, stable=True)[: how.kept]
        rest = replace(
            rest,
            features=rest.features[order],
            labels=rest.labels[order],
            weights=rest.weights[order],
        )
    test = replace(data, weights=jnp.where(held, data.weights, 0))

    def totals_of(rows: Data) -> Float[Array, " k"]:
        return jnp.matmul(rows.weights, _probabilities(rows, precisions.dtype))

    path = fit_path(rest, given.precisions, prior=prior, solver=how.solver)
    totals = sum_over_rows(totals_of, rest, row_block)
    impossible = totals == 0
    if not has_flat_bias(prior):
        impossible &= prior.bias_precision == 0
    weight = jnp.sum(test.weights)

    # One precision after the other: the scores of all would be l times as large as those a fit needs.
    def predict(params: Params) -> _Predicted:
        sums = sum_over_rows(partial(_predict, params, impossible), test, row_block)
        return jax.tree.map(lambda total: total / weight, sums)

    # No use for the coefficients any more: l copies of them a fold.
    known = path._replace(params=Params(jnp.zeros(0), jnp.zeros(0)))
    return weight, jax.lax.map(predict, path.params), known


def _probabilities(data: Data, dtype: DTypeLike) -> Float[Array, "n k"]:
    if data.labels.ndim == 2:
        return data.labels.astype(dtype)
    return jax.nn.one_hot(data.labels, data.num_classes, dtype=dtype)


class _Predicted(NamedTuple):
    """What one fit says about the rows that it has not seen: sums over them, then means."""

    log_loss: Float[Array, "..."]
    accuracy: Float[Array, "..."]


def _predict(params: Params, impossible: Bool[Array, " k"], test: Data) -> _Predicted:
    """Loss and accuracy, summed over the rows that have a weight in ``test``."""
    scores = jnp.where(impossible[None, :], -jnp.inf, logits(params, test.features))
    loss = cross_entropy_of_labels(scores, test.labels)
    chosen = jax.nn.one_hot(jnp.argmax(scores, axis=1), test.num_classes, dtype=scores.dtype)
    right = jnp.sum(chosen * _probabilities(test, scores.dtype), axis=1)
    # Rows that do not count may have a loss of inf.
    loss = jnp.where(test.weights == 0, 0, test.weights * loss)
    return _Predicted(jnp.sum(loss), jnp.sum(test.weights * right))


@jax.jit
def _summarise(
    precisions: Float[Array, " l"], weight: Float[Array, " folds"], predicted: _Predicted, fits: Fit
) -> CrossValidation:
    loss, loss_error = _mean_and_error(predicted.log_loss, weight)
    accuracy, accuracy_error = _mean_and_error(predicted.accuracy, weight)
    place = jnp.argmin(jnp.where(jnp.isfinite(loss), loss, jnp.inf))
    least, error = loss[place], loss_error[place]

    def largest(among: Bool[Array, " l"]) -> Float[Array, ""]:
        best = jnp.max(jnp.where(among, precisions, -jnp.inf))
        return jnp.where(jnp.isfinite(least), best, jnp.nan)

    return CrossValidation(
        precisions,
        predicted.log_loss,
        predicted.accuracy,
        weight,
        loss,
        loss_error,
        accuracy,
        accuracy_error,
        largest(loss <= least),
        largest(loss <= least + error),
        fits.gap,
        fits.passes,
        fits.status,
    )


def _mean_and_error(
    values: Float[Array, "folds l"], weight: Float[Array, " folds"]
) -> tuple[Float[Array, " l"], Float[Array, " l"]]:
    """Weighted mean over the folds that have a weight, and its standard error."""
    there = weight != 0
    share = (weight / jnp.sum(weight))[:, None]
    mean = jnp.sum(jnp.where(there[:, None], share * values, 0), axis=0)
    square = share * (values - mean[None, :]) ** 2
    variance = jnp.sum(jnp.where(there[:, None], square, 0), axis=0)
    return mean, jnp.sqrt(variance / (jnp.sum(there) - 1))
