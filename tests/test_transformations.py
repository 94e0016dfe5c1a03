"""Fits under jit, vmap and repeated calls: the same numbers, one trace for equal settings."""

from dataclasses import replace
from importlib import import_module

import chex
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from problems import padded

import probsoftmax as ps
from probsoftmax.fit import _optimum

NEWTON = ps.Newton()


def overlapping(precision=0.3):
    """30 rows of 3 classes that overlap, of 60: the shape that other tests have compiled for."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    y = np.argmax(x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(30, 3)) * 1.5, axis=1)
    return padded(x, y, 3, precision=precision)


def stacked(fits):
    return jax.tree.map(lambda *parts: jnp.stack(parts), *fits)


def assert_same_fits(some, others, tolerance=1e-10):
    chex.assert_trees_all_close(
        (some.params, some.objective),
        (others.params, others.objective),
        rtol=tolerance,
        atol=tolerance,
    )
    np.testing.assert_array_equal(some.status, others.status)


# Traces.


@pytest.fixture
def traces(monkeypatch):
    """The solvers that the fit has been traced for."""
    traced = []

    def optimum(data, prior, init, solver):
        traced.append(solver)
        return _optimum(data, prior, init, solver)

    monkeypatch.setattr(import_module("probsoftmax.fit"), "_optimum", optimum)
    jax.clear_caches()
    return traced


def test_one_trace_for_every_way_to_write_a_precision(traces):
    data = overlapping().data()
    for precision in (1, 1.0, np.float32(1), np.float64(1), jnp.float32(1), jnp.asarray(1.0), 3):
        for prior in (ps.GaussianPrior(precision), ps.GaussianPrior(precision, 0, 0)):
            fit = ps.fit_map(data, prior, solver=ps.Newton())
    assert fit.status == ps.Status.CONVERGED
    ps.fit_map(data, prior, solver=NEWTON, init=ps.init_params(*fit.params.weights.shape))
    assert len(traces) == 1
    # Where the prior may be flat there is more to know: maximum likelihood is a second program.
    ps.fit_mle(data, solver=ps.Newton(max_steps=100))
    ps.fit_map(data, ps.GaussianPrior(0), solver=NEWTON)
    assert len(traces) == 2


def test_one_trace_for_data_of_one_shape(traces):
    problem = overlapping()
    ps.fit_mle(problem.data(), solver=NEWTON)
    other = problem._replace(features=2 * problem.features, labels=problem.labels[::-1].copy())
    ps.fit_mle(other.data(), solver=NEWTON)
    ps.fit_mle(ps.make_data(np.nan_to_num(problem.features), problem.labels), solver=NEWTON)
    assert len(traces) == 1


def test_what_is_known_of_a_precision_changes_no_fit():
    """A number that is known to be positive spares a program what it needs for one that may be 0."""
    data = overlapping().data()
    traced = jax.jit(lambda tau: ps.fit_map(data, ps.GaussianPrior(tau), solver=NEWTON))
    known, unknown = ps.fit_map(data, ps.GaussianPrior(0.3), solver=NEWTON), traced(0.3)
    assert known.status == unknown.status == ps.Status.CONVERGED
    assert (known.steps, known.passes) == (unknown.steps, unknown.passes)
    chex.assert_trees_all_close(known.params, unknown.params, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver", [NEWTON, ps.NewtonCG(), ps.LBFGS()])
def test_a_traced_precision_of_0_is_maximum_likelihood(solver):
    """No gap, the exact decrement, and the proof of a separation, in the program that serves all precisions."""
    problem = overlapping()
    label = jnp.asarray(problem.labels)
    apart = replace(problem.data(), features=jax.nn.one_hot(label, problem.data().num_classes))

    @jax.jit
    def fit(data, tau):
        return ps.fit_map(data, ps.GaussianPrior(tau), solver=solver)

    mle = fit(problem.data(), 0.0)
    assert mle.status == ps.Status.CONVERGED
    assert mle.gap == jnp.inf
    assert fit(apart, 0.0).status == ps.Status.SEPARATED
    assert fit(apart, 1.0).status == ps.Status.CONVERGED
    assert fit(problem.data(), -1.0).status == ps.Status.DIVERGED


@pytest.mark.parametrize("bad", [-1.0, jnp.nan, jnp.inf])
def test_a_precision_that_is_none_is_not_known_to_be_positive(bad):
    fit = ps.fit_map(overlapping().data(), ps.GaussianPrior(bad), solver=NEWTON)
    assert fit.status == ps.Status.DIVERGED


def test_a_jitted_fit_is_traced_once():
    data = overlapping().data()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def fit(precision):
        return ps.fit_map(data, ps.GaussianPrior(precision), solver=ps.Newton())

    for precision in (0.1, 1.0, jnp.asarray(2.0)):
        fit(precision)


class Variants(chex.TestCase):
    """The same numbers whichever way a fit is called."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_the_numbers_do_not_depend_on_the_way_a_fit_is_called(self):
        data = overlapping().data()

        def fit(data, precision):
            return ps.fit_map(data, ps.GaussianPrior(precision), solver=NEWTON)

        found = self.variant(fit)(data, jnp.asarray(0.3))
        wanted = problems.optimum(overlapping())
        np.testing.assert_allclose(found.params.weights, wanted.weights.astype(float), atol=1e-10)
        assert found.status == ps.Status.CONVERGED


def test_jit_changes_no_digit_worth_having():
    problem = overlapping()
    data, prior = problem.data(), problem.prior()
    alone = ps.fit_map(data, prior, solver=NEWTON)
    inside = jax.jit(lambda d, p: ps.fit_map(d, p, solver=NEWTON))(data, prior)
    assert_same_fits(alone, inside, 1e-12)
    assert alone.steps == inside.steps


# vmap.


def test_a_fit_is_a_pytree_of_arrays():
    fit = ps.fit_mle(overlapping().data(), solver=NEWTON)
    leaves, tree = jax.tree.flatten(fit)
    assert len(leaves) == 8
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert isinstance(jax.tree.unflatten(tree, leaves), ps.Fit)
    assert fit.steps.dtype == fit.passes.dtype == fit.status.dtype == jnp.int32


@pytest.mark.parametrize("solver", [ps.Newton(), ps.LBFGS()])
def test_vmap_over_precisions_is_a_loop_of_fits(solver):
    """From maximum likelihood to the prior alone: lanes that end early wait without moving."""
    data = overlapping().data()
    precisions = jnp.array([0.0, 1e-4, 0.01, 0.1, 1.0, 10.0, 1e3, 1e30])

    def fit(precision):
        return ps.fit_map(data, ps.GaussianPrior(precision), solver=solver)

    together = jax.vmap(fit)(precisions)
    alone = stacked([fit(precision) for precision in precisions])
    assert_same_fits(together, alone, 1e-10 if isinstance(solver, ps.Newton) else 1e-7)
    # Lanes are counted one by one. (L-BFGS feels the rounding of another layout near the end.)
    if isinstance(solver, ps.Newton):
        np.testing.assert_array_equal(together.steps, alone.steps)
        np.testing.assert_array_equal(together.passes, alone.passes)


def test_a_lane_of_nan_does_not_touch_the_others():
    data = overlapping().data()
    precisions = jnp.array([0.0, jnp.nan, 0.01, 0.1, -1.0, 10.0, 1e3, 1e30])

    def fit(precision):
        return ps.fit_map(data, ps.GaussianPrior(precision), solver=NEWTON)

    together = jax.vmap(fit)(precisions)
    good = np.array([0, 2, 3, 5, 6, 7])
    alone = stacked([fit(precision) for precision in precisions[good]])
    assert_same_fits(jax.tree.map(lambda part: part[good], together), alone)
    assert together.status[1] == ps.Status.DIVERGED


def test_vmap_over_weights_starts_and_labels_is_a_loop_of_fits():
    """Bootstrap weights, starts and permuted labels, all at once."""
    problem, lanes = overlapping(), 4
    rng = np.random.default_rng(2)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=lanes)
    weights = jnp.asarray(np.concatenate([counts, np.zeros((lanes, 30))], axis=1), float)
    labels = jnp.asarray(np.stack([problem.labels, *(rng.integers(3, size=60) for _ in range(3))]))
    starts = ps.Params(rng.normal(size=(lanes, 3, 3)), rng.normal(size=(lanes, 3)))
    features = jnp.asarray(problem.features)

    def fit(weights, labels, start):
        data = ps.Data(features, labels, weights, 3)
        return ps.fit_map(data, ps.GaussianPrior(0.3), solver=NEWTON, init=start)

    lanes_of = [
        jax.tree.map(lambda part, i=i: part[i], (weights, labels, starts)) for i in range(lanes)
    ]
    many = jax.jit(jax.vmap(fit))
    together = many(weights, labels, starts)
    assert_same_fits(together, stacked([fit(*lane) for lane in lanes_of]))
    # X, with its column of ones, is one array for all lanes.
    program = many.lower(weights, labels, starts).as_text()
    assert f"tensor<{lanes}x3x60x" in program
    assert not any(f"tensor<{lanes}x{shape}x" in program for shape in ("4x60", "60x4"))
    # A start is no more than a start.
    elsewhere = jax.vmap(fit)(weights, labels, jax.tree.map(lambda part: -part, starts))
    chex.assert_trees_all_close(together.params, elsewhere.params, atol=1e-9)


def test_a_row_of_nan_touches_only_the_lanes_in_which_it_counts():
    problem = overlapping()
    features = jnp.asarray(problem.features).at[7].set(jnp.nan)
    with_it = jnp.asarray(problem.weights)
    weights = jnp.stack([with_it.at[7].set(0), with_it, with_it.at[7].set(0), with_it])

    def fit(weights):
        data = ps.Data(features, jnp.asarray(problem.labels), weights, 3)
        return ps.fit_map(data, ps.GaussianPrior(0.3), solver=NEWTON)

    together = jax.vmap(fit)(weights)
    np.testing.assert_array_equal(together.status == ps.Status.DIVERGED, [False, True, False, True])
    assert_same_fits(jax.tree.map(lambda part: part[0], together), fit(weights[0]))


# Precision of numbers.


def test_a_fit_has_the_dtype_of_its_features(dtype):
    problem = overlapping()
    fit = ps.fit_map(problem.data(dtype), ps.GaussianPrior(0.3), solver=NEWTON)
    floats = (*fit.params, fit.objective, fit.gap, fit.gradient_norm)
    assert {part.dtype for part in floats} == {dtype}
    best = problems.optimum(problem)
    # The tolerance is ½ · 0.3 ‖ΔW‖² nats at most.
    atol = np.sqrt(2 / 0.3 * 30 * jnp.finfo(dtype).eps ** 1.25)
    np.testing.assert_allclose(fit.params.weights, best.weights.astype(float), atol=atol)
    assert fit.status in (ps.Status.CONVERGED, ps.Status.PRECISION_FLOOR)


def test_a_default_fit_runs_without_64_bits(x64):
    data = ps.make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    fit = ps.fit_mle(data)
    assert fit.objective.dtype == (jnp.float64 if x64 else jnp.float32)
    np.testing.assert_allclose(fit.objective, 2.347486535121345545, rtol=1e-6)
