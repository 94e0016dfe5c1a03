"""The main job: maximum likelihood against maximum a posteriori, judged on rows that neither has seen.

Three parts of the rows, stratified by class: every fit sees the *training* rows only; the prior precision is chosen on
the *validation* rows; the *test* rows are looked at once, to report. Nothing here prints, plots or writes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import probsoftmax as ps
from probsoftmax.calibration import (
    ReliabilityCurve,
    brier_score,
    expected_calibration_error,
    reliability_curve,
)
from probsoftmax.shapes import Array, Float

DATASETS = ("digits", "iris", "wine", "breast_cancer")
PRECISIONS = np.logspace(-4, 2, 13)
FURTHER = 10.0
"""How much further the MLE is taken along its way to infinity, to show where that leads."""


@dataclass(frozen=True)
class Task:
    """One data set, split, in the units in which it is fitted."""

    name: str
    train: ps.Data
    validation: ps.Data
    test: ps.Data
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int] | None
    """Rows and columns of pixels, where the features are an image."""
    units: str
    """What was done to the features."""
    seed: int
    """Of the split."""


class Scores(NamedTuple):
    """How good the probabilities are on some rows."""

    nll: Float[Array, "..."]
    """Negative log-likelihood per row, in nats."""
    accuracy: Float[Array, "..."]
    calibration_error: Float[Array, "..."]
    """``expected_calibration_error`` with its 15 bins of equal width."""
    brier: Float[Array, "..."]
    confidence: Float[Array, "..."]
    """Mean probability of the predicted class: above the accuracy is overconfident."""


class Result(NamedTuple):
    """Coefficients and their scores; a sweep has the precisions as leading axis."""

    params: ps.Params
    norm: Float[Array, "..."]
    r"""Frobenius norm :math:`\|W\|`."""
    train: Scores
    validation: Scores
    test: Scores
    reliability: ReliabilityCurve
    """On the test rows."""


Stacked = TypeVar("Stacked", Result, ps.Fit)


@dataclass(frozen=True)
class Comparison:
    """Everything the report says, as arrays on the host."""

    task: Task
    mle: Result
    mle_fit: ps.Fit
    margin: float
    """Smallest margin of the MLE's scores on the training rows; above 0 they are separated."""
    further: Result | None
    """The MLE's coefficients times ``FURTHER``, where that is likelier still: where the margin is above 0."""
    precisions: np.ndarray
    sweep: Result
    sweep_fit: ps.Fit
    best: int
    """Of the precisions: the one with the least negative log-likelihood on the validation rows."""


def load_task(name: str, seed: int = 0) -> Task:
    """One of scikit-learn's bundled data sets: half of it for training, a quarter each to choose and to judge.

    Args:
        name: one of ``DATASETS``.
        seed: of the split.

    Returns:
        The split data in the default float: pixels divided by their maximum, other features standardised with mean
        and deviation of the training rows.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a name that is not in ``DATASETS``.
    """
    if name not in DATASETS:
        raise ValueError(f"data: expected one of {', '.join(DATASETS)}, got {name!r}")
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        message = 'the data sets come with scikit-learn: pip install "probsoftmax[sklearn]"'
        raise ImportError(message) from error
    bunch: Any = getattr(datasets, f"load_{name}")()
    x, y = bunch.data, bunch.target
    train, rest = train_test_split(np.arange(len(y)), train_size=0.5, stratify=y, random_state=seed)
    choose, judge = train_test_split(rest, train_size=0.5, stratify=y[rest], random_state=seed)
    if name == "digits":
        x, units = x / 16, "pixels between 0 and 1"
    else:
        deviation = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        units = "standardised on the training rows"
    parts = [
        ps.make_data(x[rows], y[rows], num_classes=int(y.max()) + 1)
        for rows in (train, choose, judge)
    ]
    return Task(
        name,
        *parts,
        feature_names=tuple(map(str, bunch.feature_names)),
        class_names=tuple(map(str, bunch.target_names)),
        image_shape=(8, 8) if name == "digits" else None,
        units=units,
        seed=seed,
    )


def compare(task: Task, precisions: ArrayLike = PRECISIONS) -> Comparison:
    """Fit by maximum likelihood and, for all precisions in one ``vmap``, by maximum a posteriori; score all of them.

    Args:
        task: the split data; its dtype is that of the fits.
        precisions: of the prior, > 0.

    Returns:
        The comparison, with the precisions in ascending order and each of them once.

    Raises:
        ValueError: no precisions, or one that is not a positive finite number.
    """
    precisions = np.unique(np.asarray(precisions, task.train.features.dtype))
    if precisions.size == 0 or not np.all((precisions > 0) & np.isfinite(precisions)):
        raise ValueError(f"precisions: expected positive finite numbers, got {precisions}")
    mle_fit = ps.fit_mle(task.train)
    sweep_fit = _fit_sweep(task.train, jnp.asarray(precisions))
    further = jax.tree.map(lambda leaf: FURTHER * leaf, mle_fit.params)
    # All coefficients are scored by one program, the MLE's in front.
    fitted = jax.tree.map(
        lambda mle, more, maps: jnp.concatenate([jnp.stack([mle, more]), maps]),
        mle_fit.params,
        further,
        sweep_fit.params,
    )
    scored = _score_all(fitted, task.train, task.validation, task.test)
    margin = _smallest_margin(mle_fit.params, task.train)
    mle_fit, sweep_fit, scored, margin = jax.device_get((mle_fit, sweep_fit, scored, margin))
    sweep = jax.tree.map(lambda leaf: leaf[2:], scored)
    return Comparison(
        task=task,
        mle=jax.tree.map(lambda leaf: leaf[0], scored),
        mle_fit=mle_fit,
        margin=float(margin),
        further=jax.tree.map(lambda leaf: leaf[1], scored) if margin > 0 else None,
        precisions=precisions,
        sweep=sweep,
        sweep_fit=sweep_fit,
        best=int(np.nanargmin(sweep.validation.nll)),
    )


def at(sweep: Stacked, index: int) -> Stacked:
    """One precision of a sweep of results or of fits."""
    return jax.tree.map(lambda leaf: leaf[index], sweep)


@jax.jit
def _fit_sweep(train: ps.Data, precisions: Float[Array, " l"]) -> ps.Fit:
    return jax.vmap(lambda tau: ps.fit_map(train, ps.GaussianPrior(tau)))(precisions)


@jax.jit
def _score_all(fitted: ps.Params, train: ps.Data, validation: ps.Data, test: ps.Data) -> Result:
    return jax.vmap(lambda params: _score(params, train, validation, test))(fitted)


def _score(params: ps.Params, train: ps.Data, validation: ps.Data, test: ps.Data) -> Result:
    return Result(
        params,
        jnp.linalg.norm(params.weights),
        _scores(params, train),
        _scores(params, validation),
        _scores(params, test),
        reliability_curve(ps.predict_proba(params, test.features), test.labels, num_bins=10),
    )


def _scores(params: ps.Params, data: ps.Data) -> Scores:
    p = ps.predict_proba(params, data.features)
    right = ps.predict(params, data.features) == data.labels
    return Scores(
        nll=ps.negative_log_likelihood(params, data) / jnp.sum(data.weights),
        accuracy=jnp.average(right, weights=data.weights),
        calibration_error=expected_calibration_error(p, data.labels, weights=data.weights),
        brier=brier_score(p, data.labels, weights=data.weights),
        confidence=jnp.average(jnp.max(p, axis=1), weights=data.weights),
    )


@jax.jit
def _smallest_margin(params: ps.Params, data: ps.Data) -> Float[Array, ""]:
    """How far the label's score is above the highest other one, in the worst of the rows."""
    scores = ps.logits(params, data.features)
    at_label = jax.nn.one_hot(data.labels, data.num_classes, dtype=bool)
    own = jnp.max(jnp.where(at_label, scores, -jnp.inf), axis=1)
    others = jnp.max(jnp.where(at_label, -jnp.inf, scores), axis=1)
    return jnp.min(own - others)
