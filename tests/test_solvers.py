"""The solvers: where they start, where and how they end, what it costs; and every optax optimiser as one of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from problems import padded

import probsoftmax as ps
from probsoftmax import Status
from probsoftmax.solvers.problem import across_flat, make_problem

SOLVERS = [ps.Newton(), ps.NewtonCG(), ps.LBFGS()]


def overlapping(precision):
    """30 rows of 3 classes that overlap, of 60: the shape that other tests have compiled for."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    y = np.argmax(x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(30, 3)) * 1.5, axis=1)
    return padded(x, y, 3, precision=precision)


PROBLEM = overlapping(0.3)
TOTAL = PROBLEM.weights.sum()


@pytest.fixture(scope="module")
def best():
    return problems.optimum(PROBLEM)


def excess(fit, best):
    return float(problems.objective(PROBLEM, fit.params) - best.objective)


@pytest.mark.parametrize("solver", SOLVERS)
def test_exact_solvers_reach_the_optimum_in_extended_precision(solver, best):
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver)
    assert fit.status == Status.CONVERGED
    # ½ · 0.3 ‖ΔW‖² is below the excess, and that below tolerance · 30 = 1e-18: ΔW below 3e-9.
    weights = best.weights.astype(float)
    np.testing.assert_allclose(fit.params.weights, weights, rtol=0, atol=5e-9)
    bias = best.bias.astype(float)
    np.testing.assert_allclose(fit.params.bias, bias - bias.mean(), rtol=0, atol=2e-8)
    assert abs(excess(fit, best)) <= problems.rounding(PROBLEM, fit.params)


def test_the_mle_of_all_solvers_is_the_same():
    fits = [ps.fit_mle(PROBLEM.data(), solver=solver) for solver in SOLVERS]
    for fit in fits:
        assert fit.status == Status.CONVERGED
        assert jnp.isinf(fit.gap)  # a flat prior gives no bound
        chex.assert_trees_all_close(fit.params, fits[0].params, rtol=0, atol=1e-7)


# Starts.


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_a_start_far_away_ends_at_the_same_optimum_or_says_not(solver, size, best):
    rng = np.random.default_rng(1)
    start = ps.Params(size * rng.normal(size=(3, 3)), size * rng.normal(size=3))
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver, init=start)
    assert fit.status in (Status.CONVERGED, Status.PRECISION_FLOOR)
    assert excess(fit, best) <= 1e-12
    np.testing.assert_allclose(fit.params.bias.sum(), 0, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_at_the_optimum_is_seen_at_once(solver, best):
    start = ps.Params(jnp.asarray(best.weights, float), jnp.asarray(best.bias, float))
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver, init=start)
    assert fit.status == Status.CONVERGED
    assert fit.steps <= 2
    mle = ps.fit_mle(PROBLEM.data(), solver=solver)
    again = ps.fit_mle(PROBLEM.data(), solver=solver, init=mle.params)
    assert again.status == Status.CONVERGED
    assert again.steps <= 2


def test_starts_in_a_flat_direction_end_class_centred():
    """For maximum likelihood every feature is flat along the classes, and the start must not show."""
    data = PROBLEM.data()
    start = ps.Params(jnp.full((3, 3), 7.0), jnp.full(3, -5.0))
    fit = ps.fit_mle(data, solver=ps.Newton(), init=start)
    chex.assert_trees_all_close(fit.params, ps.fit_mle(data, solver=ps.Newton()).params, atol=1e-9)
    np.testing.assert_allclose(fit.params.weights.sum(axis=1), 0, atol=1e-12)


# Ends.


def test_steps_leave_out_what_nothing_depends_on():
    """A shift of all classes, and the bias of a class that nobody has: its scores are impossible ones."""
    features = np.random.default_rng(0).normal(size=(10, 2))
    data = ps.make_data(features, np.tile([0, 2], 5), num_classes=3)
    nothing = ps.Params(jnp.zeros((2, 3)), jnp.zeros(3))
    problem = make_problem(data, ps.GaussianPrior(1.0), nothing, standardise=True)
    step = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
    across = across_flat(problem, step)
    np.testing.assert_array_equal(across[:, :-1], step[:, :-1])  # all weights have a prior
    assert across[1, -1] == 0
    np.testing.assert_allclose(across[0, -1] - across[2, -1], step[0, -1] - step[2, -1], rtol=1e-15)
    np.testing.assert_allclose(across[0, -1], -across[2, -1], rtol=1e-15)


def test_no_steps_certify_the_start():
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=ps.Newton(max_steps=0))
    assert (fit.status, fit.steps) == (Status.MAX_STEPS, 0)
    assert 0 < fit.gap < jnp.inf
    mle = ps.fit_mle(PROBLEM.data(), solver=ps.Newton(max_steps=0))
    assert (mle.status, mle.steps) == (Status.MAX_STEPS, 0)
    np.testing.assert_array_equal(mle.params.weights, 0)


@pytest.mark.parametrize("solver", [ps.Newton(max_steps=2), ps.LBFGS(max_steps=2)])
def test_steps_that_run_out_are_admitted(solver, best):
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver)
    assert (fit.status, fit.steps) == (Status.MAX_STEPS, 2)
    assert fit.gap >= excess(fit, best) > 0


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_start_that_is_no_number_diverges(solver, bad):
    start = ps.Params(jnp.zeros((3, 3)).at[1, 2].set(bad), jnp.zeros(3))
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver, init=start)
    assert fit.status == Status.DIVERGED


@pytest.mark.parametrize("label", [3, -1, 99])
def test_a_label_that_is_no_class_diverges(label):
    labels = PROBLEM.labels.copy()
    labels[4] = label
    data = PROBLEM._replace(labels=labels).data()
    for fit in (
        ps.fit_map(data, PROBLEM.prior(), solver=ps.Newton()),
        ps.fit_mle(data, solver=ps.LBFGS()),
    ):
        assert fit.status == Status.DIVERGED
        assert not jnp.isfinite(fit.objective)


@pytest.mark.parametrize("absent", [0, 1])
@pytest.mark.parametrize("solver", [*SOLVERS, ps.FirstOrder(optax.sgd(0.1), steps=0)])
def test_a_feature_that_is_no_number_diverges(solver, absent):
    # Of a class without an example there is nothing to say either: SEPARATED would call the rest fitted.
    for bad in (np.nan, np.inf):
        features = PROBLEM.features.copy()
        features[3, 1] = bad
        wrong = PROBLEM._replace(features=features, bias_precision=np.zeros(3 + absent))
        fit = ps.fit_map(wrong.data(), ps.GaussianPrior(0.3), solver=solver)
        assert fit.status == Status.DIVERGED


@pytest.mark.parametrize("solver", [ps.Newton(tolerance=1e-30), ps.LBFGS(tolerance=1e-30)])
def test_a_tolerance_out_of_reach_of_float32_ends_at_the_floor(solver, best):
    fit = ps.fit_map(PROBLEM.data(np.float32), PROBLEM.prior(np.float32), solver=solver)
    assert fit.status == Status.PRECISION_FLOOR
    assert fit.steps < 100  # it does not spin
    # At the floor: the excess is that of coefficients rounded to float32.
    assert excess(fit, best) <= problems.rounding(PROBLEM, fit.params, np.float32)
    assert fit.gap < 1e-4


def test_a_loose_tolerance_takes_fewer_steps_and_holds(best):
    loose = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=ps.LBFGS(tolerance=1e-4))
    tight = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=ps.LBFGS())
    assert loose.status == Status.CONVERGED
    assert loose.steps < tight.steps
    assert 0 <= excess(loose, best) <= loose.gap <= 1e-4 * TOTAL


# Costs.


def test_passes_are_counted():
    """L-BFGS: one a step, and a constant few to look at the start and to certify."""
    for precision in (0.01, 0.3):
        fit = ps.fit_map(PROBLEM.data(), ps.GaussianPrior(precision), solver=ps.LBFGS())
        assert fit.steps < fit.passes <= fit.steps + 10
    newton = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=ps.Newton())
    assert newton.passes <= 2 * newton.steps + 5
    assert newton.steps <= 15


def test_the_steps_do_not_grow_with_n():
    """The same rows with a thousand times the weight, and the prior with them: the same steps."""
    once = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=ps.LBFGS())
    many = PROBLEM._replace(weights=PROBLEM.weights * 1024, precision=np.asarray(0.3 * 1024))
    fit = ps.fit_map(many.data(), many.prior(), solver=ps.LBFGS())
    assert fit.steps == once.steps
    np.testing.assert_allclose(fit.gap, 1024 * once.gap, rtol=1e-3)


# First-order solvers.


def chained():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))


def masked():
    """Momentum for the weights, plain descent for the bias."""
    labels = ps.Params("weights", "bias")
    return optax.partition({"weights": optax.sgd(0.4, 0.8), "bias": optax.sgd(1.0)}, labels)


def scheduled():
    return optax.adam(optax.cosine_decay_schedule(0.1, 600))


# Name, optimiser, nats per unit of weight it comes to in 600 steps.
OPTIMIZERS = {
    "sgd": (optax.sgd(1.0), 1e-8),
    "momentum": (optax.sgd(0.5, momentum=0.8), 1e-12),
    "nesterov": (optax.sgd(0.5, momentum=0.8, nesterov=True), 1e-12),
    "adam": (optax.adam(0.05), 1e-9),
    "adamw without decay": (optax.adamw(0.05, weight_decay=0.0), 1e-9),
    "rmsprop": (optax.rmsprop(optax.exponential_decay(0.05, 20, 0.8)), 1e-6),
    "lion": (optax.lion(optax.exponential_decay(0.05, 20, 0.8)), 1e-6),
    "yogi": (optax.yogi(0.1), 1e-8),
    "chained": (chained(), 1e-9),
    "partitioned": (masked(), 1e-12),
    "scheduled": (scheduled(), 1e-10),
    "lbfgs": (optax.lbfgs(), 1e-14),
    "line search": (
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
        1e-8,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_reaches_the_optimum(name, best):
    optimizer, tolerance = OPTIMIZERS[name]
    data, prior = PROBLEM.data(), ps.GaussianPrior(0.3)

    def mean_objective(params):
        return ps.map_objective(params, data, prior) / TOTAL

    result = ps.minimize(mean_objective, ps.init_params(3, 3), optimizer, steps=600)
    assert -1e-13 <= excess(result, best) <= tolerance * TOTAL
    assert result.trace.gradient_norm[-1] < 1e-2 * result.trace.gradient_norm[0]


FIRST_ORDER = ps.FirstOrder(optax.sgd(0.5, momentum=0.8), steps=600, tolerance=1e-10)


def test_a_first_order_fit_is_certified(best):
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=FIRST_ORDER)
    assert fit.status == Status.CONVERGED
    assert fit.gap <= 1e-10 * TOTAL
    assert fit.gap >= excess(fit, best) - problems.rounding(PROBLEM, fit.params)
    np.testing.assert_allclose(fit.params.weights, best.weights.astype(float), rtol=0, atol=1e-4)
    assert fit.steps == 600
    assert 600 <= fit.passes <= 610


def test_a_first_order_fit_that_is_not_there_yet_says_so(best):
    solver = ps.FirstOrder(optax.adam(1e-3), steps=5)
    fit = ps.fit_map(PROBLEM.data(), PROBLEM.prior(), solver=solver)
    assert fit.status == Status.MAX_STEPS
    assert fit.gap >= excess(fit, best) > 1e-3


def test_a_learning_rate_that_is_too_high_diverges():
    solver = ps.FirstOrder(optax.sgd(1e200), steps=20)
    big = PROBLEM._replace(precision=np.asarray(1e200))
    fit = ps.fit_map(big.data(), big.prior(), solver=solver)
    assert fit.status == Status.DIVERGED
    # What is returned is usable: the last finite iterate, not NaN.
    assert all(jnp.all(jnp.isfinite(part)) for part in fit.params)


def test_a_first_order_fit_of_minibatches(best):
    schedule = optax.cosine_decay_schedule(0.5, 1200)
    solver = ps.FirstOrder(optax.sgd(schedule), steps=1200, batch_size=20, tolerance=1e-2)
    rows = PROBLEM._replace(
        features=PROBLEM.features[:30], labels=PROBLEM.labels[:30], weights=PROBLEM.weights[:30]
    )
    fit = ps.fit_map(rows.data(), rows.prior(), solver=solver)
    assert fit.gap >= excess(fit, best)
    assert excess(fit, best) < 1e-3 * TOTAL
    assert fit.status == Status.CONVERGED
    # An epoch of two batches, the second of 10 rows, is one pass.
    assert 600 <= fit.passes <= 610


def test_solvers_are_values():
    """Equal settings are equal and hash alike, so that they share one program; and nothing can change them."""
    for solver in (ps.Newton, ps.LBFGS):
        assert solver(max_steps=7) == solver(max_steps=7)
        assert hash(solver(max_steps=7)) == hash(solver(max_steps=7))
        assert solver(max_steps=7) != solver(max_steps=8)
        with pytest.raises(AttributeError):
            solver().max_steps = 3
    optimizer = optax.adam(0.1)
    assert ps.FirstOrder(optimizer) == ps.FirstOrder(optimizer)
    assert jax.tree.structure(Status.CONVERGED).num_leaves == 1
