"""Fewer rows than features: the fit in the space of the rows is the fit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps
from probsoftmax.solvers.orthonormal import along, combined, orthonormal
from probsoftmax.solvers.problem import make_problem, to_params
from probsoftmax.solvers.row_space import has_row_space, in_row_space, into, out_of
from probsoftmax.solvers.solver import Solution

N, D, K = 6, 9, 3


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    # Features in units from 1e-3 to 1e3, and one that is constant.
    x = (rng.normal(size=(N, D)) + 2) * 10.0 ** rng.integers(-3, 4, D)
    x[:, 4] = 5.0
    return ps.make_data(x, [0, 1, 2, 0, 1, 2], weights=[1, 2, 1, 0.5, 0, 3])


@pytest.fixture
def prior():
    return ps.GaussianPrior(0.7, 0.0, np.random.default_rng(1).normal(size=(D, K)))


def test_the_optimum_is_that_of_all_features(data, prior):
    """One precision for each feature, all equal, is the same prior, and is fitted with all features."""
    few = ps.fit_map(data, prior)
    all_features = ps.fit_map(data, prior._replace(precision=np.full((D, 1), 0.7)))
    assert few.status == ps.Status.CONVERGED
    np.testing.assert_allclose(few.objective, all_features.objective, rtol=1e-13)
    for some, others in zip(few.params, all_features.params, strict=True):
        np.testing.assert_allclose(some, others, rtol=1e-9, atol=1e-9 * np.abs(others).max())
    gradient = jax.grad(ps.map_objective)(few.params, data, prior)
    scale = np.abs(data.features).max(axis=0)[:, None]
    assert np.all(np.abs(gradient.weights) < 1e-12 * (1 + scale) * N)


@pytest.mark.parametrize("rows", ["any", "centred", "equal", "alike", "empty", "of any size"])
def test_the_axes_are_orthonormal_and_hold_the_rows(rows, dtype):
    """Whatever way they are found in: but for axes that no row needs, which may be 0."""
    x, eps = np.random.default_rng(4).normal(size=(3 * N, 2 * N)), float(jnp.finfo(dtype).eps)
    alike = x[:, 0] + 10 * eps**0.25 * x[:, 1]
    x[:, 1] = {"equal": x[:, 0], "alike": alike, "empty": 0 * x[:, 0]}.get(rows, x[:, 1])
    x *= np.where(rows == "of any size", 1e-3 ** np.arange(3 * N), 1)[:, None]
    x -= np.where(rows == "centred", x.mean(axis=1), 0)[:, None]
    x = x.astype(dtype)
    axes = jax.jit(orthonormal)(x, rows == "centred", 0)
    q = np.asarray(along(axes, np.eye(3 * N, dtype=dtype)))
    np.testing.assert_allclose(q @ axes.inside, x, atol=32 * N * eps * np.abs(x).max())
    squares = np.linalg.eigvalsh(q.astype(float).T @ q)
    unit = squares > 0.5
    np.testing.assert_allclose(squares, unit, atol=32 * N * eps)
    assert unit.sum() >= 2 * N - 1


@pytest.mark.parametrize("condition", [1, 10, 100, 1000])
def test_the_axes_are_as_nearly_orthonormal_as_asked(condition, dtype):
    """Of rows whose spectrum is known, and to a rounding at best."""
    rng, eps = np.random.default_rng(5), float(jnp.finfo(dtype).eps)
    left, right = (np.linalg.qr(rng.normal(size=(size, 2 * N)))[0] for size in (40 * N, 2 * N))
    x = ((left * np.geomspace(1, 1 / condition, 2 * N)) @ right.T).astype(dtype)
    eye, find = np.eye(2 * N, dtype=dtype), jax.jit(orthonormal)
    for enough in (0, 100 * eps, 1e4 * eps, np.inf):
        axes = find(x, False, enough)
        q = np.asarray(combined(axes, eye), float).T
        error = np.linalg.norm(q.T @ q - eye, 2)
        # Beyond half the digits the axes are never off, whatever is asked.
        assert error <= min(max(enough, 8 * N * eps), eps**0.5)
        np.testing.assert_allclose(q @ axes.inside, x, atol=(error + 8 * N * eps) * np.abs(x).max())


def test_the_coordinates_lose_nothing(data, prior):
    """Scores, penalty and gradient of a point are those of its image, apart from what the rows do not see."""
    problem = make_problem(data, prior, ps.init_params(D, K), standardise=True)
    assert has_row_space(problem)
    small, space = in_row_space(problem, jnp.asarray(1e-19))
    assert small.features.shape == (N + 1, N)
    anywhere = jnp.asarray(np.random.default_rng(2).normal(size=(K, D + 1)))
    inside = into(space, anywhere)
    zero, count = jnp.zeros(()), jnp.zeros((), jnp.int32)
    solution = Solution(inside, zero, zero, inside, count, count, count)
    found = out_of(problem, space, solution)
    theta = found.theta
    np.testing.assert_allclose(into(space, theta), inside, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(
        theta @ problem.features, small.base + inside @ small.features, rtol=1e-11, atol=1e-12
    )
    penalty = jnp.sum(problem.precision * (theta - problem.mean) ** 2)
    np.testing.assert_allclose(
        penalty, jnp.sum(small.precision * (inside - small.mean) ** 2), rtol=1e-12
    )
    there = ps.map_objective(to_params(problem, theta), data, prior)
    np.testing.assert_allclose(found.objective, there, rtol=1e-13)


@pytest.mark.parametrize("solver", [ps.Newton(), ps.NewtonCG(), ps.LBFGS()])
def test_a_mean_in_small_units_rounds_nothing_in_large_ones(solver):
    """The axes mix features of any units; a mean in their coordinates is rounded to its largest entry."""
    rng = np.random.default_rng(6)
    units = 10.0 ** np.linspace(-6, 6, D)
    data = ps.make_data(rng.normal(size=(N, D)) * units, rng.dirichlet(np.ones(K), size=N))
    prior = ps.GaussianPrior(1e-5, mean=rng.normal(size=(D, K)) / units[:, None])
    fit = ps.fit_map(data, prior, solver=solver)
    # By feature, so that nothing is mixed.
    wide = prior._replace(precision=np.full((D, 1), 1e-5))
    best = ps.fit_map(data, wide, solver=ps.Newton())
    np.testing.assert_allclose(fit.objective, best.objective, rtol=1e-13, atol=1e-15)
    there = ps.map_objective(fit.params, data, prior)
    np.testing.assert_allclose(fit.objective, there, rtol=1e-13, atol=1e-15)
    assert fit.objective - best.objective <= fit.gap + 1e-15


def test_many_rows_or_many_precisions_stay_where_they_are(data, prior):
    several = prior._replace(precision=np.full((D, 1), 0.7))
    assert not has_row_space(make_problem(data, several, ps.init_params(D, K), standardise=True))
    narrow = replace(data, features=data.features[:, :5])
    flat = ps.GaussianPrior(0.7)
    assert not has_row_space(make_problem(narrow, flat, ps.init_params(5, K), standardise=True))


def test_units_that_differ_by_more_than_the_squares_of_the_dtype():
    """In float32 the square of 1e-20 is 0, and a prior must not be."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, D)).astype(np.float32)
    x[:, 0] *= 1e20
    y = [0, 1, 2, 0, 1, 2]
    fit = ps.fit_map(ps.make_data(x, y), ps.GaussianPrior(np.float32(0.7)))
    exact = ps.make_data(x.astype(float), y)
    # The large feature is free of the prior in effect: the rest are penalised as they are.
    best = ps.fit_map(exact, ps.GaussianPrior(0.7))
    found = ps.map_objective(jax.tree.map(jnp.float64, fit.params), exact, ps.GaussianPrior(0.7))
    np.testing.assert_allclose(found, best.objective, rtol=1e-4)


@pytest.mark.parametrize("trouble", ["a row of NaN that does not count", "a class without rows"])
def test_what_is_absent_is_absent_in_the_space_of_the_rows(data, prior, trouble):
    if trouble == "a class without rows":
        data = replace(data, labels=jnp.where(data.labels == 2, 1, data.labels))
    else:
        features = data.features.at[4].set(jnp.nan)  # its weight is 0
        data = replace(data, features=features)
    few = ps.fit_map(data, prior)
    all_features = ps.fit_map(data, prior._replace(precision=np.full((D, 1), 0.7)))
    assert few.status == all_features.status
    assert (few.status == ps.Status.SEPARATED) == (trouble == "a class without rows")
    np.testing.assert_allclose(few.objective, all_features.objective, rtol=1e-12)
    np.testing.assert_allclose(few.params.weights, all_features.params.weights, atol=1e-8)


def test_a_path_through_the_space_of_the_rows_is_certified_in_all_features(data, prior):
    path = ps.fit_path(data, jnp.array([1.0, 30.0]), prior=prior)
    for i, factor in enumerate((1.0, 30.0)):
        best = ps.fit_map(data, prior._replace(precision=0.7 * factor)).objective
        point = jax.tree.map(lambda part, i=i: part[i], path.params)
        found = ps.map_objective(point, data, prior._replace(precision=0.7 * factor))
        np.testing.assert_allclose(found, path.objective[i], rtol=1e-12)
        assert found - best <= path.gap[i] + 1e-12
        assert path.status[i] == ps.Status.CONVERGED


@pytest.mark.parametrize("precision", [10.0, 0.1])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-9, None])
def test_a_fit_on_axes_as_good_as_it_needs_is_certified_in_all_features(precision, tolerance):
    """Rows of condition 1000: their axes are found once if the tolerance is loose, and twice if not."""
    rng = np.random.default_rng(6)
    left, right = (np.linalg.qr(rng.normal(size=(size, 12)))[0] for size in (40, 12))
    x = right @ (left * np.geomspace(100, 0.1, 12)).T
    data, prior = ps.make_data(x, np.arange(12) % 3), ps.GaussianPrior(precision)
    fit = ps.fit_map(data, prior, solver=ps.NewtonCG(tolerance=tolerance))
    best = ps.fit_map(data, prior._replace(precision=np.full((40, 1), precision)))
    assert (fit.status, best.status) == (ps.Status.CONVERGED, ps.Status.CONVERGED)
    found = ps.map_objective(fit.params, data, prior)
    # Two objectives are told apart to a few roundings. (Along axes that no row needs a fit may pay for nothing.)
    rounding = 64 * np.finfo(float).eps * best.objective
    assert found <= fit.objective + 1e-3 * fit.gap + rounding
    assert found - best.objective <= fit.gap + rounding
