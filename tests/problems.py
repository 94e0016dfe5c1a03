"""Problems whose optimum is known, and the optimum of any other, found in extended precision.

Nothing here uses the package to compute: the oracle is Newton's method in NumPy's long double (64 bits
of mantissa on x86), on the objective as it stands in the design, with a factorisation of its own. It is slow
and does not care.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import probsoftmax as ps

Real = np.longdouble


class Problem(NamedTuple):
    """A fit to make, everything spelled out."""

    features: np.ndarray  # (n, d)
    labels: np.ndarray  # (n,) classes, or (n, k) probabilities
    weights: np.ndarray  # (n,)
    precision: np.ndarray  # (d, k), or () where one number is shared
    bias_precision: np.ndarray  # (k,)
    mean: np.ndarray  # (d, k)

    @property
    def num_classes(self) -> int:
        return len(self.bias_precision)

    def data(self, dtype=np.float64) -> ps.Data:
        soft = self.labels.ndim == 2
        labels = jnp.asarray(self.labels, dtype if soft else np.int32)
        features, weights = jnp.asarray(self.features, dtype), jnp.asarray(self.weights, dtype)
        return ps.Data(features, labels, weights, self.num_classes)

    def prior(self, dtype=np.float64) -> ps.GaussianPrior:
        parts = (self.precision, self.bias_precision, self.mean)
        return ps.GaussianPrior(*(jnp.asarray(part, dtype) for part in parts))


def problem(features, labels, k, *, weights=None, precision=1.0, bias_precision=0.0, mean=0.0):
    """A problem from what a caller would write, broadcast."""
    features, labels = np.asarray(features, float), np.asarray(labels)
    (n, d), precision = features.shape, np.asarray(precision, float)
    return Problem(
        features,
        labels,
        np.ones(n) if weights is None else np.asarray(weights, float),
        precision if precision.ndim == 0 else np.broadcast_to(precision, (d, k)),
        np.broadcast_to(np.asarray(bias_precision, float), (k,)),
        np.broadcast_to(np.asarray(mean, float), (d, k)),
    )


def padded(features, labels, k, *, n=60, d=3, weights=None, **prior):
    """A small problem in a common shape, so that many share one compiled program.

    The rows that are added have weight 0 and hold NaN, the columns hold 0: both are as if absent.
    """
    features = np.asarray(features, float)
    rows, columns = features.shape
    x = np.full((n, d), np.nan)
    x[:rows] = np.pad(features, ((0, 0), (0, d - columns)))
    s = np.zeros(n)
    s[:rows] = 1 if weights is None else weights
    y = np.asarray(labels)
    y = np.concatenate([y, np.zeros((n - rows, *y.shape[1:]), y.dtype)])
    return problem(x, y, k, weights=s, **prior)


# The oracle.


class Optimum(NamedTuple):
    weights: np.ndarray
    bias: np.ndarray
    objective: Real
    decrement: Real
    """Half the squared Newton decrement where it stopped: how far, very nearly, it still was."""


class _Terms(NamedTuple):
    features: np.ndarray  # (n, m), with the column of ones
    targets: np.ndarray  # (n, k)
    weights: np.ndarray  # (n,)
    precision: np.ndarray  # (m, k)
    mean: np.ndarray  # (m, k)


def _terms(problem: Problem) -> _Terms:
    rows = problem.weights > 0
    x = problem.features[rows].astype(Real)
    y, k = problem.labels[rows], problem.num_classes
    targets = y.astype(Real) if y.ndim == 2 else (y[:, None] == np.arange(k)).astype(Real)
    shape = (x.shape[1], k)
    return _Terms(
        np.concatenate([x, np.ones((len(x), 1), Real)], axis=1),
        targets,
        problem.weights[rows].astype(Real),
        np.concatenate(
            [np.broadcast_to(problem.precision, shape), problem.bias_precision[None, :]]
        ).astype(Real),
        np.concatenate([problem.mean, np.zeros((1, k))]).astype(Real),
    )


def _value(terms: _Terms, theta):
    scores = terms.features @ theta
    top = scores.max(axis=1, keepdims=True)
    log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    # A class of probability 0 that nobody asks for costs nothing.
    loss = -np.where(terms.targets > 0, terms.targets * log_p, 0).sum(axis=1)
    penalty = (terms.precision * (theta - terms.mean) ** 2).sum() / 2
    return (terms.weights * loss).sum() + penalty, np.exp(log_p)


def objective(problem: Problem, params: ps.Params) -> Real:
    """E(W) in long double."""
    return _value(_terms(problem), _stack(params))[0]


def gradient(problem: Problem, params: ps.Params) -> np.ndarray:
    """dE/dW, the bias in the last row, in long double."""
    terms, theta = _terms(problem), _stack(params)
    p = _value(terms, theta)[1]
    pulled = terms.features.T @ (terms.weights[:, None] * (p - terms.targets))
    return pulled + terms.precision * (theta - terms.mean)


def rounding(problem: Problem, params: ps.Params, dtype=np.float64) -> float:
    """What an objective at these coefficients may differ by when all of it is rounded to ``dtype`` a few times."""
    terms, theta = _terms(problem), _stack(params)
    value, _ = _value(terms, theta)
    scores = np.abs(terms.features) @ np.abs(theta)
    size = value + (terms.weights * (1 + scores.max(axis=1))).sum()
    return float(16 * np.finfo(dtype).eps * size)


def _stack(params: ps.Params) -> np.ndarray:
    return np.concatenate([np.asarray(params.weights), np.asarray(params.bias)[None, :]]).astype(
        Real
    )


def without_absent_classes(problem: Problem) -> Problem:
    """The problem that is left once the classes nobody has, whose bias is flat, went to minus infinity."""
    totals = _terms(problem).weights @ _terms(problem).targets
    keep = (totals > 0) | (problem.bias_precision > 0)
    labels = problem.labels
    labels = labels[:, keep] if labels.ndim == 2 else (np.cumsum(keep) - 1)[labels]
    precision = problem.precision if problem.precision.ndim == 0 else problem.precision[:, keep]
    return problem._replace(
        labels=labels,
        precision=precision,
        bias_precision=problem.bias_precision[keep],
        mean=problem.mean[:, keep],
    )


def optimum(problem: Problem, steps: int = 500) -> Optimum:
    """The minimum of E, where it is attained, to the last digits of a long double."""
    terms = _terms(problem)
    m, k = terms.features.shape[1], problem.num_classes
    theta = np.zeros((m, k), Real)
    value, p = _value(terms, theta)
    decrement = Real(np.inf)
    for _ in range(steps):
        slope = terms.features.T @ (terms.weights[:, None] * (p - terms.targets))
        slope = slope + terms.precision * (theta - terms.mean)
        hessian = np.zeros((k, m, k, m), Real)
        for a in range(k):
            for b in range(k):
                s = terms.weights * p[:, a] * ((a == b) - p[:, b])
                hessian[a, :, b, :] = (terms.features * s[:, None]).T @ terms.features
            hessian[a, range(m), a, range(m)] += terms.precision[:, a]
        # One number added to a feature in all classes changes nothing where its prior is flat.
        for j in np.flatnonzero((terms.precision == 0).all(axis=1)):
            hessian[:, j, :, j] += np.einsum("kk->k", hessian[:, j, :, j]).mean() / k
        step = -_solve(hessian.reshape(k * m, k * m), slope.T.reshape(-1)).reshape(k, m).T
        decrement = -(step * slope).sum() / 2
        length = Real(1)
        while length > 1e-12:
            there, p_there = _value(terms, theta + length * step)
            if there <= value - length * decrement / 4:
                break
            length /= 2
        else:
            # No descent is left in these digits.
            return Optimum(theta[:-1], theta[-1], value, decrement)
        theta, value, p = theta + length * step, there, p_there
        if decrement < 1e-22 * terms.weights.sum():
            break
    return Optimum(theta[:-1], theta[-1], value, decrement)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A symmetric positive definite system in long double: Cholesky's root of the matrix scaled to a unit diagonal."""
    root = 1 / np.sqrt(np.where(np.diagonal(matrix) > 0, np.diagonal(matrix), 1))
    a = matrix * root[:, None] * root[None, :]
    m = len(a)
    lower = np.zeros_like(a)
    for j in range(m):
        pivot = a[j, j] - lower[j, :j] @ lower[j, :j]
        if pivot <= 4 * m * np.finfo(Real).eps:
            continue  # no curvature left in this direction: the step does not take it
        column = a[j:, j] - lower[j:, :j] @ lower[j, :j]
        lower[j:, j] = column / np.sqrt(pivot)
    taken = np.diagonal(lower) > 0
    lower, x = lower[np.ix_(taken, taken)], np.zeros(m, Real)
    y = (root * right)[taken]
    for j in range(len(y)):
        y[j] = (y[j] - lower[j, :j] @ y[:j]) / lower[j, j]
    for j in reversed(range(len(y))):
        y[j] = (y[j] - lower[j + 1 :, j] @ y[j + 1 :]) / lower[j, j]
    x[taken] = y
    return root * x


# Problems.


def random_problem(seed: int, n: int = 24, d: int = 6, k: int = 3) -> tuple[Problem, set[str]]:
    """A problem of one shape that may have anything wrong with it, and the names of what it has.

    Fewer rows than features come by weights of 0, so that every problem shares one compiled program.
    """
    rng = np.random.default_rng([2024, seed])
    traits = {
        name
        for name, chance in {
            "few rows": 0.2,
            "collinear": 0.3,
            "constant": 0.3,
            "duplicate": 0.3,
            "units": 0.4,
            "weights": 0.5,
            "absent rows": 0.4,
            "absent class": 0.2,
            "soft labels": 0.3,
            "penalised bias": 0.3,
            "mean": 0.4,
            "precisions": 0.5,
            "separable": 0.2,
        }.items()
        if rng.uniform() < chance
    }
    x, units = rng.normal(size=(n, d)), np.ones((d, 1))
    if "collinear" in traits:
        x[:, 1] = x[:, 2] - 2 * x[:, 3]
    if "constant" in traits:
        x[:, 4] = 1.5
    if "duplicate" in traits:
        x[:, 5] = x[:, 0]
    scores = (30.0 if "separable" in traits else 1.0) * x @ rng.normal(size=(d, k))
    if "absent class" in traits:
        scores[:, rng.integers(k)] = -np.inf
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    labels = p if "soft labels" in traits else np.array([rng.choice(k, p=row) for row in p])
    weights = np.ones(n)
    if "weights" in traits:
        weights = rng.gamma(0.5, size=n) * 10.0 ** rng.integers(-1, 2)
    if "units" in traits:
        units = 10.0 ** rng.uniform(-6, 6, size=(d, 1))
        x = x * units.T
    if "few rows" in traits:
        weights[4:] = 0
    if "absent rows" in traits:
        weights[: n // 4 : 2] = 0
        x = np.where(weights[:, None] == 0, np.nan, x)
    precision = np.full((d, k), 10.0 ** rng.uniform(-6, 6))
    if "precisions" in traits:
        shape = [(d, 1), (k,), (d, k)][rng.integers(3)]
        precision = precision * 10.0 ** rng.uniform(-2, 2, size=shape)
    made = problem(
        x,
        labels,
        k,
        weights=weights,
        precision=precision,
        bias_precision=10.0 ** rng.uniform(-3, 3, size=k) if "penalised bias" in traits else 0,
        mean=rng.normal(size=(d, k)) / units if "mean" in traits else 0,
    )
    return made, traits


def random_few_rows(seed: int) -> tuple[Problem, set[str]]:
    """One with fewer rows than features and a single precision: its fits take place in the space of the rows."""
    made, traits = random_problem(seed, n=8, d=12)
    return made._replace(precision=made.precision[0, 0]), traits - {"precisions"}
