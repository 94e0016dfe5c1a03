"""The gap is never below the true excess, and no status lies: on random problems with everything that goes wrong.

The true excess is computed in extended precision, against an optimum of an oracle that shares no line with the
package (problems.py).
"""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import probsoftmax as ps

SEEDS = range(60)


@cache
def random_problem(seed, make=problems.random_problem):
    """A random problem, and the infimum of its objective."""
    problem, traits = make(seed)
    best = problems.optimum(problems.without_absent_classes(problem))
    assert best.decrement < 1e-18 * problem.weights.sum(), f"the oracle failed on {sorted(traits)}"
    return problem, best.objective


def assert_no_lie(fit, problem, infimum, dtype=np.float64, tolerance=None):
    """The gap bounds the excess, the objective is the one of the coefficients, and the status is true."""
    fit, eps = jax.device_get(fit), np.finfo(dtype).eps
    tolerance = eps**1.25 if tolerance is None else tolerance
    total = problem.weights.sum()
    value = problems.objective(problem, fit.params)
    rounding = problems.rounding(problem, fit.params, dtype)
    excess = float(value - infimum)
    assert fit.gap >= 0
    assert fit.gap >= excess - rounding
    assert abs(float(fit.objective - value)) <= rounding
    absent = problems.without_absent_classes(problem).num_classes < problem.num_classes
    assert fit.status != ps.Status.DIVERGED
    # Every weight has a prior here: only a class that nobody has can run away.
    assert (fit.status == ps.Status.SEPARATED) == absent
    if fit.status == ps.Status.CONVERGED:
        assert fit.gap <= tolerance * total * (1 + 8 * eps)
        assert excess <= tolerance * total + rounding


def test_the_random_problems_have_everything_that_goes_wrong():
    traits = [problems.random_problem(seed)[1] for seed in SEEDS]
    assert min(sum(name in some for some in traits) for name in set().union(*traits)) >= 6


def test_the_oracle_knows_a_closed_form():
    """Two points at ±1, labels 0 and 1, W = (-1, 1): stationary at precision 2 / (1 + e²)."""
    problem = problems.problem([[-1.0], [1.0]], [0, 1], 2, precision=2 / (1 + np.exp(2.0)))
    found = problems.optimum(problem)
    np.testing.assert_allclose(found.weights.astype(float), [[-1.0, 1.0]], rtol=1e-15)
    np.testing.assert_allclose(found.bias.astype(float), 0, atol=1e-15)


def test_the_gap_bounds_the_excess_anywhere():
    """At points near and far from the optimum, certified as they stand: one program for all of them."""
    certify = ps.Newton(max_steps=0)
    for seed in SEEDS:
        problem, infimum = random_problem(seed)
        rng = np.random.default_rng(seed)
        found = ps.fit_map(problem.data(), problem.prior(), solver=ps.Newton()).params
        present = np.where(problem.weights[:, None] > 0, problem.features, 0)
        units = 1 / np.maximum(np.abs(present).max(axis=0), 1e-300)[:, None]
        for size in 10.0 ** rng.uniform(-9, 1, size=3):
            start = ps.Params(
                found.weights
                + size * rng.normal(size=found.weights.shape) * np.minimum(units, 1e9),
                found.bias + size * rng.normal(size=found.bias.shape),
            )
            fit = jax.device_get(
                ps.fit_map(problem.data(), problem.prior(), solver=certify, init=start)
            )
            assert_no_lie(fit, problem, infimum)
            assert fit.steps == 0
            # Only the biases have moved, and what a feature has in common to all classes; for the better.
            moved = fit.params.weights - start.weights
            assert np.all(np.ptp(moved, axis=1) <= 1e-14 * np.abs(start.weights).max(axis=1))
            before = problems.objective(problem, start)
            after = problems.objective(problem, fit.params)
            assert after <= before + problems.rounding(problem, start)


@pytest.mark.parametrize(
    ("solver", "tolerance"), [(ps.Newton(max_steps=2), None), (ps.LBFGS(4, 1e-3), 1e-3)]
)
def test_the_gap_of_a_fit_stopped_early_bounds_its_excess(solver, tolerance):
    ends = []
    for seed in SEEDS:
        problem, infimum = random_problem(seed)
        if problem.labels.ndim == 2:
            continue
        fit = jax.device_get(ps.fit_map(problem.data(), problem.prior(), solver=solver))
        assert_no_lie(fit, problem, infimum, tolerance=tolerance)
        assert fit.steps <= solver.max_steps
        ends.append(int(fit.status))
    assert ends.count(ps.Status.MAX_STEPS) > len(ends) / 3  # many were indeed stopped early


@pytest.mark.parametrize(
    ("make", "solver", "roundings"),
    [
        (problems.random_problem, ps.Newton(), 4),
        (problems.random_problem, ps.LBFGS(), 100),
        (problems.random_problem, ps.NewtonCG(), 100),
        (problems.random_few_rows, ps.Newton(), 4),
        # On one of these its steps gain less than a rounding each while it is still 185 off.
        (problems.random_few_rows, ps.LBFGS(), 1000),
        (problems.random_few_rows, ps.NewtonCG(), 100),
    ],
)
def test_no_status_lies_at_the_end(make, solver, roundings):
    converged = 0
    for seed in SEEDS:
        problem, infimum = random_problem(seed, make)
        fit = jax.device_get(ps.fit_map(problem.data(), problem.prior(), solver=solver))
        assert_no_lie(fit, problem, infimum)
        assert fit.status != ps.Status.MAX_STEPS
        # Whatever it is called: it is the optimum, but for a few roundings of the objective.
        excess = float(problems.objective(problem, fit.params) - infimum)
        assert excess <= roundings * problems.rounding(problem, fit.params), f"seed {seed}"
        converged += int(fit.status) == ps.Status.CONVERGED
    assert converged > len(SEEDS) / 2


def test_the_gap_is_a_bound_in_float32():
    for seed in SEEDS:
        problem, _ = random_problem(seed)
        if problem.labels.ndim == 2:
            continue  # rounded, they would no longer sum to 1
        # The oracle gets what float32 made of the problem: that is the one which was fitted.
        single = problems.Problem(*(np.asarray(part, np.float32) for part in problem))
        single = single._replace(labels=problem.labels)
        infimum = problems.optimum(problems.without_absent_classes(single)).objective
        fit = ps.fit_map(single.data(np.float32), single.prior(np.float32), solver=ps.Newton())
        assert fit.params.weights.dtype == np.float32
        assert_no_lie(fit, single, infimum, np.float32)


def test_the_gap_is_infinite_where_the_prior_is_flat():
    """One flat weight of eighteen is enough."""
    rng = np.random.default_rng(0)
    problem = problems.problem(rng.normal(size=(24, 6)), np.arange(24) % 3, 3)
    precision = np.ones((6, 3))
    for flat, finite in ((None, True), ((2, 1), False), (np.s_[:], False)):
        if flat is not None:
            precision[flat] = 0
        prior = problem._replace(precision=precision).prior()
        fit = ps.fit_map(problem.data(), prior, solver=ps.Newton())
        assert jnp.isfinite(fit.gap) == finite


def test_a_bias_that_is_off_is_never_certified():
    """Σ(∂E/∂W)²/(2τ) alone is no bound while a flat bias is not stationary: here it is 0, far from the optimum."""
    x = np.repeat([[-1.0], [1.0]], 10, axis=0)
    y = np.array([0] * 9 + [1] + [0] * 9 + [1])  # the feature tells nothing, the classes are 9 to 1
    problem = problems.problem(x, y, 2, precision=1.0)
    fit = ps.fit_map(problem.data(), problem.prior(), solver=ps.Newton(max_steps=0))
    best = problems.optimum(problem)
    assert fit.gap >= float(problems.objective(problem, fit.params) - best.objective) - 1e-13
    # It is the biases that moved: with them the certificate may say at step 0 that this is the optimum.
    # A thousandth of the tolerance, ½ · 20 · 0.09 · error² nats.
    np.testing.assert_allclose(fit.params.bias[0] - fit.params.bias[1], np.log(9), rtol=1e-10)


@pytest.mark.parametrize("solver", [ps.Newton(), ps.LBFGS()])
@pytest.mark.parametrize("seed", range(4))
def test_a_chosen_optimum_is_found(solver, seed):
    """Pick W*, b* and the precisions; then solve the stationarity equations for labels and prior mean."""
    rng = np.random.default_rng(seed)
    n, d, k = 24, 6, 3
    x, weights, bias = rng.normal(size=(n, d)), rng.normal(size=(d, k)), rng.normal(size=k)
    wanted = ps.Params(weights, bias - bias.mean())
    p = np.exp(x @ wanted.weights + wanted.bias)
    p /= p.sum(axis=1, keepdims=True)
    # Probabilities mixed with those of the next row have the same sums: the flat bias is stationary.
    labels = 0.4 * p + 0.6 * np.roll(p, 1, axis=0)
    precision = 10.0 ** rng.uniform(-2, 2, size=(d, k))
    mean = wanted.weights + x.T @ (p - labels) / precision
    problem = problems.problem(x, labels, k, precision=precision, mean=mean)
    assert np.max(np.abs(problems.gradient(problem, wanted))) < 1e-12
    fit = ps.fit_map(problem.data(), problem.prior(), solver=solver)
    # The flat bias is free along one direction: the class-centred one is returned.
    chex.assert_trees_all_close(fit.params, wanted, rtol=0, atol=1e-8)
    assert_no_lie(fit, problem, problems.objective(problem, wanted))


def test_certifying_never_makes_a_point_worse():
    """Unequal classes, biases far off: Newton steps on them alone overshoot, and must be kept in check."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)), np.repeat([0, 1, 2], [18, 4, 2])
    problem = problems.problem(x, y, 3, precision=np.ones((6, 3)))
    alone = problem._replace(precision=np.full((6, 3), 1e30))  # what biases can do with W = 0
    best = problems.optimum(alone)
    for size in (1.0, 3.0, 10.0, 30.0, 300.0):
        for bias in (
            np.array([-1.0, 0.5, 0.5]),
            np.array([0.5, 0.5, -1.0]),
            np.array([0, 1.0, -1]),
        ):
            start = ps.Params(np.zeros((6, 3)), size * bias)
            fit = jax.device_get(
                ps.fit_map(
                    problem.data(), problem.prior(), solver=ps.Newton(max_steps=0), init=start
                )
            )
            value = problems.objective(problem, fit.params)
            assert value <= problems.objective(problem, start) * (1 + 1e-14)
            # As far as a softmax is not saturated they are found, and then there is a bound.
            if size <= 10:
                np.testing.assert_allclose(fit.params.bias, best.bias.astype(float), atol=1e-9)
                assert np.isfinite(fit.gap)


@pytest.mark.parametrize("solver", [ps.Newton(), ps.LBFGS()])
def test_a_prior_mean_far_away_is_no_precision_floor(solver):
    """½τM² = 1e15 nats at the start: the objective there must not decide, by its rounding, what is left to gain."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(24, 6)) * np.array([1, 1, 1e-6, 1, 1, 1]), np.arange(24) % 3
        mean, precision = np.zeros((6, 3)), np.full((6, 3), 0.1)
        mean[2], precision[2] = 3e4 * rng.normal(size=3), 2e6
        problem = problems.problem(x, y, 3, precision=precision, mean=mean)
        infimum = problems.optimum(problem).objective
        fit = ps.fit_map(problem.data(), problem.prior(), solver=solver)
        assert_no_lie(fit, problem, infimum)
        excess = problems.objective(problem, fit.params) - infimum
        assert excess <= 100 * problems.rounding(problem, fit.params)


def test_a_class_nobody_has_is_left_out_where_rows_are_absent_too():
    """Rows of weight 0 hold no label: not even that of class 0."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)), 1 + np.arange(24) % 2
    weights = np.where(np.arange(24) < 6, 0, 1)
    problem = problems.problem(x, y, 3, weights=weights, precision=np.ones((6, 3)))
    infimum = problems.optimum(problems.without_absent_classes(problem)).objective
    fit = ps.fit_map(problem.data(), problem.prior(), solver=ps.Newton())
    assert_no_lie(fit, problem, infimum)
    assert problems.objective(problem, fit.params) - infimum <= 1e-12
