"""The linear program's verdicts: against `fit_mle`, against one program for each pair of row and class, and by proof.

The proof of a separation is its direction; the proof that nothing more is separated is that the face has a maximum.
"""

from fractions import Fraction

import numpy as np
import problems
import pytest
import scipy.optimize
from problems import padded
from test_separated import COMPLETE, LINE, NEWTON, OVERLAP, QUASI, SQUARE

import probsoftmax as ps
from probsoftmax.directions import all_pairs, margins, maximal_direction, orthonormal

MORE = {
    "a declared class that is absent": (padded(LINE, [0, 1, 0, 1], 3), "quasi", -2.347486535121345545),
    "an absent class, the others apart": (padded(LINE, [0, 0, 1, 1], 3), "complete", 0.0),
    "half a row of each class": (
        padded(LINE, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 1]], 3),
        "quasi",
        -2 * np.log(2),
    ),
    "a doubt in the middle": (
        padded([[0.0], [1.0], [2.0]], [[1.0, 0], [0.25, 0.75], [0, 1.0]], 2),
        "quasi",
        0.25 * np.log(0.25) + 0.75 * np.log(0.75),
    ),
    "doubts on both sides": (padded(LINE, [[1.0, 0], [0.8, 0.2], [0.3, 0.7], [0, 1.0]], 2), "overlap", None),
    "every class on a line of its own": (
        padded([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]], [0, 0, 1, 1, 2, 2], 3),
        "complete",
        0.0,
    ),
    # Of the three classes each pair shares an end: rows choose between two of three, not always the same two.
    "three ties": (
        padded(np.repeat([[0.0, 0], [1, 0], [0, 1]], 2, axis=0), [0, 1, 1, 2, 2, 0], 3),
        "quasi",
        -6 * np.log(2),
    ),
    "one class only": (padded(LINE, [1, 1, 1, 1], 2), "complete", 0.0),
    "weights": (
        padded([[0.0], [1.0], [1.0], [2.0]], [0, 0, 1, 1], 2, weights=[5, 1, 3, 1e-9]),
        "quasi",
        np.log(1 / 4) + 3 * np.log(3 / 4),
    ),
}  # fmt: skip
EVERY = (
    {name: (problem, "complete", 0.0) for name, problem in COMPLETE.items()}
    | {name: (problem, "quasi", -nats) for name, (problem, nats) in QUASI.items()}
    | {name: (problem, "overlap", None) for name, problem in OVERLAP.items()}
    | MORE
)


@pytest.mark.parametrize("name", EVERY)
def test_a_constructed_set(name):
    problem, kind, supremum = EVERY[name]
    found = ps.separation(problem.data())
    assert (found.kind, found.proven) == (kind, True)
    if supremum is None:
        supremum = -float(problems.optimum(problem._replace(precision=np.zeros(()))).objective)
    np.testing.assert_allclose(found.supremum, supremum, rtol=1e-12, atol=1e-13)
    assert_proven(problem, found)


@pytest.mark.parametrize("name", EVERY)
def test_fit_mle_agrees(name):
    problem, kind, supremum = EVERY[name]
    fit = ps.fit_mle(problem.data(), solver=NEWTON)
    wanted = ps.Status.CONVERGED if kind == "overlap" else ps.Status.SEPARATED
    assert fit.status == wanted
    assert -fit.objective <= ps.separation(problem.data()).supremum + 1e-13


@pytest.mark.parametrize("name", EVERY)
def test_the_program_alone_says_the_same(name):
    """Clear cases are settled before it is asked."""
    problem = EVERY[name][0]
    present = problem.weights > 0
    labels = problem.labels[present]
    shares = labels if labels.ndim == 2 else np.eye(problem.num_classes)[labels]
    rows, pairs = orthonormal(problem.features[present]).spanned.rows, all_pairs(shares)
    strict, direction = maximal_direction(rows, pairs, problem.num_classes)
    separated = np.zeros((len(problem.weights), problem.num_classes), bool)
    separated[np.flatnonzero(present)[pairs.row[strict]], pairs.rival[strict]] = True
    np.testing.assert_array_equal(separated, ps.separation(problem.data()).separated)
    apart = margins(rows, pairs, direction)
    np.testing.assert_allclose(apart[~strict], 0, atol=1e-12)
    assert np.all(apart[strict] > 1 - 1e-12)


def assert_proven(problem, found):
    """In fractions, which do not round: along the direction no label falls behind, and what is separated is in front.

    Ties are the exception: the direction itself was rounded.
    """
    direction, rows = found.direction, np.flatnonzero(problem.weights > 0)
    exact = np.vectorize(Fraction)
    if found.kind == "overlap":
        assert not np.any(direction.weights)
        assert not np.any(found.separated)
        assert not np.any(found.classes)
        assert not np.any(found.features)
        return
    np.testing.assert_allclose(direction.weights.sum(axis=1), 0, atol=1e-12)
    scores = exact(problem.features[rows]) @ exact(direction.weights) + exact(direction.bias)
    smallest = np.inf
    for i, row in zip(rows, scores, strict=True):
        label = problem.labels[i]
        own = np.flatnonzero(label > 0) if problem.labels.ndim == 2 else [label]
        margins = np.array([float(row[own[0]] - score) for score in row])
        assert np.all(np.abs(margins[~found.separated[i]]) < 1e-9)
        assert not np.any(found.separated[i][own])
        smallest = min(smallest, *margins[found.separated[i]], np.inf)
        assert found.rows[i] == (found.separated[i].sum() == problem.num_classes - 1)
    np.testing.assert_allclose(smallest, 1, rtol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_more_could_be_separated(seed):
    """Small whole numbers, where ties are many: every pair of row and class has a program of its own as the oracle."""
    rng = np.random.default_rng([5, seed])
    n, d, k = 8, 2, 3
    x, y = rng.integers(-1, 2, size=(n, d)).astype(float), rng.integers(k, size=n)
    y = np.where(rng.uniform(size=n) < 0.8, np.argmax(x @ rng.normal(size=(d, k)), axis=1), y)
    found = ps.separation(ps.make_data(x, y, num_classes=k))
    margins = np.zeros((n, k, d + 1, k))
    for i in range(n):
        for j in range(k):
            margins[i, j, :, y[i]] += np.append(x[i], 1)
            margins[i, j, :, j] -= np.append(x[i], 1)
    lines = margins.reshape(n * k, -1)
    best = [
        scipy.optimize.linprog(-line, A_ub=-lines, b_ub=np.zeros(n * k), bounds=(-1, 1)).fun
        for line in lines
    ]
    np.testing.assert_array_equal(found.separated, np.reshape(best, (n, k)) < -1e-6)
    assert found.proven
    # The supremum from above a weak prior, in extended precision.
    weak = problems.optimum(problems.problem(x, y, k, precision=1e-11))
    params = ps.Params(weak.weights, weak.bias)
    loss = float(problems.objective(problems.problem(x, y, k, precision=0.0), params))
    assert -1e-13 <= found.supremum + loss < 1e-6


@pytest.mark.parametrize(("name", "kind"), [("wine", "complete"), ("breast_cancer", "complete")])
def test_a_separable_data_set(name, kind, request):
    features, labels = request.getfixturevalue(name)
    data = ps.make_data(features, labels)
    found = ps.separation(data)
    assert (found.kind, found.supremum, found.proven) == (kind, 0, True)
    scores = ps.logits(found.direction, data.features)
    rival = np.where(np.arange(data.num_classes) == labels[:, None], -np.inf, scores).max(axis=1)
    assert np.min(np.take_along_axis(scores, labels[:, None], 1)[:, 0] - rival) > 0.99
    assert found.rows.all()
    assert found.classes.all()
    assert found.features.all()
    assert ps.fit_mle(data).status == ps.Status.SEPARATED


def test_iris(iris):
    """Setosa is apart. The others are a problem of their own, whose maximum is the supremum."""
    features, labels = iris
    data = ps.make_data(features, labels)
    found = ps.separation(data)
    two = problems.problem(features[50:], labels[50:] - 1, 2, precision=0.0)
    assert found.kind == "quasi"
    np.testing.assert_allclose(found.supremum, -float(problems.optimum(two).objective), rtol=1e-12)
    np.testing.assert_array_equal(found.rows, labels == 0)
    np.testing.assert_array_equal(found.classes, [True, False, False])
    # The two keep their distance along the direction.
    scores = features @ found.direction.weights + found.direction.bias
    np.testing.assert_allclose(scores[50:, 1] - scores[50:, 2], 0, atol=1e-13)
    assert ps.fit_mle(data).status == ps.Status.SEPARATED


@pytest.mark.parametrize("exponents", [np.zeros(4), np.linspace(-6, 6, 4)])
def test_units_offsets_and_dependent_columns_change_nothing(iris, exponents):
    features, labels = iris
    found = ps.separation(ps.make_data(features, labels))
    # Powers of two, so that nothing is rounded; twice a column, a constant one, and a far smaller one.
    units = 2.0 ** np.round(exponents / np.log10(2))
    changed = np.c_[features * units, 2 * features[:, :1] * units[:1], np.full(150, 0.1)]
    other = ps.separation(ps.make_data(changed, labels))
    assert other.kind == "quasi"
    np.testing.assert_allclose(other.supremum, found.supremum, rtol=1e-12)
    np.testing.assert_array_equal(other.separated, found.separated)
    # The constant column says nothing that the bias does not.
    np.testing.assert_array_equal(other.features, [True] * 5 + [False])


def test_rows_may_be_shuffled_repeated_and_absent(iris):
    features, labels = iris
    order = np.random.default_rng(0).permutation(150)
    spoilt = np.r_[features[order], np.full((3, 4), np.nan)]
    weights = np.r_[np.full(150, 2.0), np.zeros(3)]
    shuffled = ps.separation(ps.make_data(spoilt, np.r_[labels[order], -1, 7, 0], weights=weights))
    twice = ps.separation(ps.make_data(np.r_[features, features], np.r_[labels, labels]))
    np.testing.assert_allclose(shuffled.supremum, twice.supremum, rtol=1e-13)
    np.testing.assert_array_equal(shuffled.separated[:150], twice.separated[:150][order])
    assert not shuffled.separated[150:].any()
    assert not shuffled.rows[150:].any()


def test_classes_may_be_permuted(iris):
    features, labels = iris
    found = ps.separation(ps.make_data(features, labels))
    order = np.array([2, 0, 1])
    other = ps.separation(ps.make_data(features, order[labels]))
    np.testing.assert_allclose(other.supremum, found.supremum, rtol=1e-13)
    np.testing.assert_array_equal(other.separated[:, order], found.separated)
    np.testing.assert_array_equal(other.classes[order], found.classes)


@pytest.mark.parametrize("margin", [1e-3, 1e-6, 1e-8])
def test_a_small_margin_is_one(margin):
    apart = ps.separation(ps.make_data([[0.0], [1.0], [1 + margin], [2.0]], [0, 0, 1, 1]))
    assert apart.kind == "complete"
    astride = ps.separation(ps.make_data([[0.0], [1 + margin], [1.0], [2.0]], [0, 0, 1, 1]))
    assert astride.kind == "overlap"


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 0, 1]])
def test_a_margin_that_float64_cannot_see_is_never_proven_away(labels):
    found = ps.separation(ps.make_data([[0.0], [1.0], [1 + 1e-12], [2.0]], labels))
    assert not found.proven or found.kind == ("complete" if labels[1] == 0 else "overlap")


def test_a_share_of_next_to_nothing_is_a_label_still():
    """Every class has some of every row, so there is a maximum; its curvature is below float64's roundings."""
    share = 1e-30
    found = ps.separation(ps.make_data(LINE, [[1, share], [1, share], [share, 1], [share, 1]]))
    assert (found.kind, found.proven) == ("overlap", False)
    assert -1e-10 < found.supremum <= 0


def test_names_only_the_feature_that_runs_away():
    """A level that one class alone has, beside a feature that overlaps; the face is the rows without the level."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    level = np.repeat([0.0, 1.0], [30, 10])
    y = np.where(level > 0, 1, rng.uniform(size=40) < 1 / (1 + np.exp(-x))).astype(int)
    found = ps.separation(ps.make_data(np.c_[x, level], y))
    assert found.kind == "quasi"
    np.testing.assert_array_equal(found.features, [False, True])
    np.testing.assert_array_equal(found.rows, level > 0)
    rest = problems.optimum(problems.problem(x[:30, None], y[:30], 2, precision=0.0))
    np.testing.assert_allclose(found.supremum, -float(rest.objective), rtol=1e-12)


def test_the_election_survey_of_1996_overlaps():
    anes96 = pytest.importorskip("statsmodels.datasets.anes96", reason="the survey ships with it")
    survey = anes96.load_pandas().data
    columns = ["logpopul", "selfLR", "age", "educ", "income"]
    data = ps.make_data(survey[columns].to_numpy(), survey["PID"].to_numpy().astype(int))
    found = ps.separation(data)
    assert found.kind == "overlap"
    # Newton's method in 40 digits.
    np.testing.assert_allclose(found.supremum, -1461.922747248, rtol=1e-12)


def test_no_choice_is_no_separation():
    found = ps.separation(ps.make_data(LINE, [0, 0, 0, 0], num_classes=1))
    assert (found.kind, found.supremum) == ("overlap", 0)
    assert ps.separation(ps.make_data(SQUARE, np.full((4, 3), 1 / 3))).kind == "overlap"


def test_data_that_nobody_checked_are():
    x, ones = np.ones((2, 1)), np.ones(2)
    with pytest.raises(ValueError, match=r"data.labels: expected a class 0..1, got -1 in row 1"):
        ps.separation(ps.Data(x, np.array([0, -1]), ones, 2))
    with pytest.raises(ValueError, match=r"data.features: expected a finite number, got nan"):
        ps.separation(ps.Data(x * np.nan, np.array([0, 1]), ones, 2))
    with pytest.raises(ValueError, match=r"data.weights: expected at least one > 0"):
        ps.separation(ps.Data(x, np.array([0, 1]), 0 * ones, 2))
