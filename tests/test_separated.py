"""Does a finite maximum exist? Data whose answer is proven, by a linear program elsewhere or by eye.

Separated: a direction along which the likelihood only improves. Completely: every row; quasi: some rows stay on the
boundary, and the supremum of the likelihood is finite.
"""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from problems import padded

import probsoftmax as ps

NEWTON = ps.Newton()
LINE = [[0.0], [1.0], [2.0], [3.0]]
SQUARE = [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]

COMPLETE = {
    "4 points": padded(LINE, [0, 0, 1, 1], 2, precision=0.0),
    "2 points": padded([[0.0], [1.0]], [0, 1], 2, precision=0.0),
    "and": padded(SQUARE, [0, 1, 0, 0], 2, precision=0.0),
    "tiny margin": padded([[0.0], [1.0], [1.0001], [2.0]], [0, 0, 1, 1], 2, precision=0.0),
    "3 corners": padded([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2], 3, precision=0.0),
    "fewer rows than features": padded(np.eye(3), [1, 0, 1], 2, precision=0.0),
}
# With the supremum of the log-likelihood.
QUASI = {
    # The two rows at 1 are of both classes: each is a toss of a coin.
    "a tie on the boundary": (padded([[0.0], [1.0], [1.0], [2.0]], [0, 0, 1, 1], 2), 2 * np.log(2)),
    # Class 2 is apart, the others overlap as in the reference.
    "one class apart": (
        padded([*LINE, [9.0], [9.5]], [0, 1, 0, 1, 2, 2], 3),
        2.347486535121345545,
    ),
    # A level of a category that only class 1 has.
    "a level of one class": (
        padded([[0, 0], [0, 1], [0, 0], [0, 1], [1, 0]], [0, 0, 1, 1, 1], 2),
        4 * np.log(2),
    ),
}
OVERLAP = {
    "4 points": padded(LINE, [0, 1, 0, 1], 2, precision=0.0),
    "xor": padded(SQUARE, [0, 0, 1, 1], 2, precision=0.0),
    "one point, two labels": padded([[1.0], [1.0]], [0, 1], 2, precision=0.0),
    "one row wrong": padded(
        [[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]], [0, 0, 1, 0, 1, 1], 2, precision=0.0
    ),
    "collinear": padded(
        [[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [0, 1, 0, 1], 2, precision=0.0
    ),
    "constant column": padded(np.c_[LINE, np.ones(4)], [0, 1, 0, 1], 2, precision=0.0),
    "three classes": padded(
        np.repeat([[-1.0], [0.0], [1.0]], 6, axis=0), [0, 0, 0, 1, 2, 2] * 3, 3, precision=0.0
    ),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_complete_separation(name):
    problem = COMPLETE[name]
    fit = ps.fit_mle(problem.data(), solver=NEWTON)
    assert fit.status == ps.Status.SEPARATED
    # The proof is in the hand: every row is classified with a positive margin.
    rows = problem.weights > 0
    scores = np.asarray(ps.logits(fit.params, problem.features[rows]))
    own = np.take_along_axis(scores, problem.labels[rows, None], 1)
    others = np.where(np.arange(problem.num_classes) == problem.labels[rows, None], -np.inf, scores)
    assert np.all(own > others.max(axis=1, keepdims=True))
    assert fit.objective >= 0


@pytest.mark.parametrize("name", QUASI)
def test_quasi_separation(name):
    problem, supremum = QUASI[name]
    fit = ps.fit_mle(problem.data(), solver=NEWTON)
    assert fit.status == ps.Status.SEPARATED
    # Of the negative log-likelihood it is the infimum: never reached, let alone passed.
    assert fit.objective >= supremum * (1 - 1e-14)


@pytest.mark.parametrize("name", OVERLAP)
def test_overlap_is_no_false_alarm(name):
    fit = ps.fit_mle(OVERLAP[name].data(), solver=NEWTON)
    assert fit.status == ps.Status.CONVERGED


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_verdict_does_not_depend_on_units(scale):
    for problem, wanted in (
        (COMPLETE["4 points"], ps.Status.SEPARATED),
        (QUASI["one class apart"][0], ps.Status.SEPARATED),
        (OVERLAP["4 points"], ps.Status.CONVERGED),
        (OVERLAP["three classes"], ps.Status.CONVERGED),
    ):
        scaled = problem._replace(features=1e3 * scale + problem.features * scale)
        assert ps.fit_mle(scaled.data(), solver=NEWTON).status == wanted


@pytest.mark.parametrize("total", [1e-12, 1e12])
def test_the_verdict_does_not_depend_on_the_total_weight(total):
    for problem, wanted in (
        (COMPLETE["4 points"], ps.Status.SEPARATED),
        (OVERLAP["4 points"], ps.Status.CONVERGED),
    ):
        weighted = problem._replace(weights=problem.weights * total)
        assert ps.fit_mle(weighted.data(), solver=NEWTON).status == wanted


def test_one_row_of_little_weight_keeps_the_classes_from_being_separated():
    """A row on the wrong side, a thousandth of the others: they overlap, the optimum is far but there."""
    x = [[-2.0], [-1.0], [1.0], [2.0], [1.5]]
    problem = padded(x, [0, 0, 1, 1, 0], 2, weights=[1, 1, 1, 1, 1e-3], precision=0.0)
    fit = ps.fit_mle(problem.data(), solver=NEWTON)
    assert fit.status == ps.Status.CONVERGED
    # The score equations hold: nothing of the gradient is left.
    assert np.max(np.abs(problems.gradient(problem, fit.params))) < 1e-9


def test_four_points_against_the_reference():
    """Maximum likelihood of x = 0, 1, 2, 3 with labels 0, 1, 0, 1, by a Newton iteration in 40 digits."""
    fit = ps.fit_mle(OVERLAP["4 points"].data(), solver=NEWTON)
    np.testing.assert_allclose(fit.objective, 2.347486535121345545, rtol=1e-15)
    slope = fit.params.weights[0, 1] - fit.params.weights[0, 0]
    np.testing.assert_allclose(slope, 0.9081842625600950831, rtol=1e-11)
    bias = fit.params.bias[1] - fit.params.bias[0]
    np.testing.assert_allclose(bias, -1.362276393840142625, rtol=1e-11)


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits"])
def test_separable_data_sets(name, request):
    features, labels = request.getfixturevalue(name)
    fit = ps.fit_mle(ps.make_data(features, labels))
    assert fit.status == ps.Status.SEPARATED
    assert (ps.predict(fit.params, features) == labels).all()


def test_iris_is_quasi_separated(iris):
    """Setosa is apart, the two others overlap: the supremum is that of the two alone."""
    features, labels = iris
    data = ps.make_data(features, labels)
    fit = ps.fit_mle(data)
    assert fit.status == ps.Status.SEPARATED
    two = ps.Data(data.features, jnp.maximum(data.labels - 1, 0), (data.labels > 0) * 1.0, 2)
    overlap = ps.fit_mle(two)
    assert overlap.status == ps.Status.CONVERGED
    assert fit.objective >= overlap.objective
    # statsmodels' Newton stopped at this log-likelihood, and its coefficients are the reference.
    np.testing.assert_allclose(overlap.objective, 5.949273395971, rtol=1e-9)


def test_first_order_solvers_and_lbfgs_see_it_too():
    # One that has run far enough holds the proof; it is never said of data that overlap.
    for solver in (ps.LBFGS(),):
        assert ps.fit_mle(COMPLETE["4 points"].data(), solver=solver).status == ps.Status.SEPARATED
        assert ps.fit_mle(QUASI["a tie on the boundary"][0].data(), solver=solver).status == (
            ps.Status.SEPARATED
        )
        for name in ("4 points", "xor", "collinear"):
            fit = ps.fit_mle(OVERLAP[name].data(), solver=solver)
            assert fit.status in (ps.Status.CONVERGED, ps.Status.PRECISION_FLOOR)


def test_a_declared_class_without_rows_is_separated():
    problem = padded(LINE, [0, 1, 0, 1], 3, precision=0.0)
    fit = ps.fit_mle(problem.data(), solver=NEWTON)
    assert fit.status == ps.Status.SEPARATED
    np.testing.assert_allclose(fit.objective, 2.347486535121345545, rtol=1e-13)


def test_a_prior_makes_separated_data_fit():
    for problem in (*COMPLETE.values(), *(problem for problem, _ in QUASI.values())):
        for precision in (1e-6, 1.0):
            made = problem._replace(precision=np.asarray(precision))
            fit = ps.fit_map(made.data(), made.prior(), solver=NEWTON)
            assert fit.status == ps.Status.CONVERGED


def test_a_prior_on_one_feature_alone_leaves_the_other_to_separate():
    data = padded([[0, 0], [1, 1], [0, 2], [1, 3]], [0, 0, 1, 1], 2).data()
    # The second column separates. A prior on it is enough; one on the others is not.
    for column, wanted in ((1, ps.Status.CONVERGED), (0, ps.Status.SEPARATED)):
        precision = np.zeros((3, 2))
        precision[column] = 1.0
        fit = ps.fit_map(data, ps.GaussianPrior(precision), solver=NEWTON)
        assert fit.status == wanted


def test_soft_labels_separate_only_where_they_are_certain():
    soft = padded(LINE, [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]], 2, precision=0.0)
    assert ps.fit_mle(soft.data(), solver=NEWTON).status == ps.Status.CONVERGED
    certain = soft._replace(labels=np.round(soft.labels))
    assert ps.fit_mle(certain.data(), solver=NEWTON).status == ps.Status.SEPARATED


@pytest.mark.parametrize("seed", [13, 23, 33])
def test_a_share_of_next_to_nothing_is_no_separation(seed):
    """Labels that are probabilities of the model itself, down to 1e-88: its coefficients are the maximum."""
    x, truth = np.random.default_rng(seed).normal(size=(24, 2)), np.array([60.0, -30.0])
    away = x @ truth
    p = np.exp(-np.logaddexp(0, np.stack([away, -away], axis=1)))
    fit = ps.fit_mle(padded(x, p, 2, precision=0.0).data(), solver=NEWTON)
    assert fit.status == ps.Status.CONVERGED
    np.testing.assert_allclose(np.diff(fit.params.weights[:2])[:, 0], truth, rtol=1e-6)


def test_float32_reaches_the_same_verdicts():
    for problem, wanted in (
        (COMPLETE["4 points"], {ps.Status.SEPARATED}),
        (QUASI["a tie on the boundary"][0], {ps.Status.SEPARATED}),
        (OVERLAP["4 points"], {ps.Status.CONVERGED}),
        (OVERLAP["xor"], {ps.Status.CONVERGED}),
    ):
        fit = ps.fit_mle(problem.data(np.float32), solver=NEWTON)
        assert ps.Status(int(fit.status)) in wanted


def test_the_election_survey_of_1996_against_stata():
    """anes96: seven classes of party, raw units, overlapping. Stata's log-likelihood and coefficients."""
    statsmodels = pytest.importorskip(
        "statsmodels.api", reason="the survey ships with statsmodels, which is no dependency"
    )
    survey = statsmodels.datasets.anes96.load_pandas().data
    columns = ["logpopul", "selfLR", "age", "educ", "income"]
    data = ps.make_data(survey[columns].to_numpy(), survey["PID"].to_numpy().astype(int))
    fit = ps.fit_mle(data)
    assert fit.status == ps.Status.CONVERGED
    np.testing.assert_allclose(fit.objective, 1461.922747312, rtol=1e-10)
    relative = jax.tree.map(
        lambda part: np.asarray(part)[..., 1:] - np.asarray(part)[..., :1], fit.params
    )
    stata = np.array(
        [
            [-0.01153598, 0.29771435, -0.024945, 0.08249144, 0.00519655, -0.37340167],
            [-0.08875065, 0.39166864, -0.02289784, 0.18104276, 0.04787398, -2.2509132],
            [-0.1059667, 0.57345051, -0.01485121, -0.00715242, 0.05757516, -3.6655835],
            [-0.0915567, 1.2787718, -0.00868135, 0.19982796, 0.08449838, -7.6138431],
            [-0.0932846, 1.3469616, -0.01790407, 0.21693885, 0.08095841, -7.0604782],
            [-0.14088069, 2.0700801, -0.00943265, 0.3219257, 0.10889408, -12.105751],
        ]
    )
    # To the digits that Stata printed.
    np.testing.assert_allclose(relative.weights.T, stata[:, :5], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(relative.bias, stata[:, 5], rtol=1e-6)
