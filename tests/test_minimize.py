"""Any objective with any optax optimiser: the loop, its minibatches, its state, its bar and its errors."""

import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest

import probsoftmax as ps

TARGET = jnp.array([3.0, -1.0])
SGD = optax.sgd(0.25)
ADAM = optax.adam(0.05)


def bowl(w):
    return jnp.sum((w - TARGET) ** 2)


def fit_problem():
    """30 rows in float64, unequal weights, well-conditioned: 3 features, 3 classes."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(30, 3))
    y = np.argmax(x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(30, 3)), axis=1)
    weights = rng.uniform(0.5, 1.5, size=30)
    return problems.problem(x, y, 3, weights=weights, precision=2.0)


PROBLEM = fit_problem()
TOTAL = PROBLEM.weights.sum()


def mean_objective(params, data):
    return ps.map_objective(params, data, ps.GaussianPrior(2.0)) / TOTAL


def zeros():
    return ps.init_params(3, 3)


def test_gradient_descent_on_a_bowl():
    """w - T halves at each step of length ¼ along 2(w - T), exactly."""
    result = ps.minimize(bowl, jnp.zeros(2), SGD, steps=10)
    np.testing.assert_array_equal(result.params, TARGET * (1 - 0.5**10))
    np.testing.assert_array_equal(result.trace.objective, 10 * 0.25 ** np.arange(10))
    np.testing.assert_array_equal(result.trace.gradient_norm, 6 * 0.5 ** np.arange(10))
    np.testing.assert_array_equal(result.trace.evaluations, np.ones(10))


def test_no_steps_change_nothing():
    start = jnp.array([1.0, 2.0])
    result = ps.minimize(bowl, start, SGD, steps=0)
    np.testing.assert_array_equal(result.params, start)
    assert result.trace.objective.shape == (0,)


def test_params_are_any_pytree():
    def apart(params):
        return sum(jnp.sum((leaf - 1.0) ** 2) for leaf in jax.tree.leaves(params))

    start = {"a": jnp.zeros(2), "b": (jnp.zeros((1, 2)), jnp.zeros(()))}
    result = ps.minimize(apart, start, SGD, steps=60)
    chex.assert_trees_all_close(result.params, jax.tree.map(jnp.ones_like, start), rtol=1e-15)


def test_two_halves_with_the_state_are_the_whole():
    data = PROBLEM.data()
    whole = ps.minimize(mean_objective, zeros(), ADAM, steps=60, data=data)
    first = ps.minimize(mean_objective, zeros(), ADAM, steps=30, data=data)
    second = ps.minimize(mean_objective, first.params, ADAM, steps=30, data=data, state=first.state)
    chex.assert_trees_all_equal(second.params, whole.params)
    chex.assert_trees_all_equal(second.state, whole.state)
    np.testing.assert_array_equal(
        jnp.concatenate([first.trace.objective, second.trace.objective]), whole.trace.objective
    )
    # Without the state, Adam would start its averages afresh.
    cold = ps.minimize(mean_objective, first.params, ADAM, steps=30, data=data)
    assert not np.array_equal(cold.params.weights, whole.params.weights)


def test_the_state_of_a_line_search_goes_on_too():
    optimizer = optax.lbfgs()
    data = PROBLEM.data()
    whole = ps.minimize(mean_objective, zeros(), optimizer, steps=10, data=data)
    first = ps.minimize(mean_objective, zeros(), optimizer, steps=5, data=data)
    second = ps.minimize(
        mean_objective, first.params, optimizer, steps=5, data=data, state=first.state
    )
    chex.assert_trees_all_close(second.params, whole.params, rtol=1e-9, atol=1e-12)


def test_a_line_search_counts_its_evaluations_and_wastes_none():
    calls = []

    def counted(w):
        jax.debug.callback(lambda: calls.append(1))
        return bowl(w)

    result = ps.minimize(counted, jnp.zeros(2), optax.lbfgs(), steps=4)
    jax.effects_barrier()
    jax.block_until_ready(result)
    assert int(result.trace.evaluations.sum()) <= len(calls)
    np.testing.assert_allclose(result.params, TARGET, rtol=1e-12)


# Minibatches.


def gradients_times(sizes):
    """Stays where it is, and sums up the gradients it is shown, each times the rows of its batch."""

    def init(params):
        return jnp.zeros((), int), jax.tree.map(jnp.zeros_like, params)

    def update(gradient, state, params=None):
        del params
        step, total = state
        size = jnp.asarray(sizes)[step % len(sizes)]
        total = jax.tree.map(lambda t, g: t + size * g, total, gradient)
        return jax.tree.map(jnp.zeros_like, gradient), (step + 1, total)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("batch_size", [10, 8, 1000])
def test_the_gradients_of_an_epoch_average_to_the_full_one(batch_size, key):
    """Each batch stands for all rows and counts the prior once: weighted by rows they are the whole, ragged or not."""
    data = PROBLEM.data()
    params = ps.Params(jnp.arange(9.0).reshape(3, 3) / 9, jnp.arange(3.0))
    sizes = [len(rows) for rows in np.split(np.arange(30), range(batch_size, 30, batch_size))]
    result = ps.minimize(
        mean_objective,
        params,
        gradients_times(sizes),
        steps=2 * len(sizes),
        data=data,
        batch_size=batch_size,
        key=key,
    )
    value, gradient = jax.value_and_grad(mean_objective)(params, data)
    mean = jax.tree.map(lambda total: total / 60, result.state[1])
    chex.assert_trees_all_close(mean, gradient, rtol=1e-12, atol=1e-14)
    for epoch in np.split(np.asarray(result.trace.objective), 2):
        np.testing.assert_allclose(epoch @ sizes / 30, value, rtol=1e-13)


def test_an_epoch_visits_every_row_once(key):
    """Each row has a weight that is a bit of its own: the sum of an epoch tells who was there."""
    n = 20
    data = ps.Data(jnp.arange(float(n))[:, None], jnp.zeros(n, int), jnp.ones(n), num_classes=2)

    def rows(params, batch):
        return params[0] * 0 + jnp.sum(jnp.where(batch.weights > 0, 2.0 ** batch.features[:, 0], 0))

    result = ps.minimize(rows, jnp.zeros(1), SGD, steps=9, data=data, batch_size=7, key=key)
    epochs = np.asarray(result.trace.objective).reshape(3, 3)
    np.testing.assert_array_equal(epochs.sum(axis=1), 2.0**n - 1)
    assert len(np.unique(epochs)) == 9  # shuffled anew


def test_minibatches_go_on_where_they_stopped_being_full(key):
    """A key, and the fit is the same; another, and it is not."""
    data = PROBLEM.data()
    arguments = {"steps": 12, "data": data, "batch_size": 8}
    first = ps.minimize(mean_objective, zeros(), ADAM, key=key, **arguments)
    again = ps.minimize(mean_objective, zeros(), ADAM, key=key, **arguments)
    other = ps.minimize(mean_objective, zeros(), ADAM, key=jax.random.key(1), **arguments)
    chex.assert_trees_all_equal(first.params, again.params)
    assert not np.array_equal(first.params.weights, other.params.weights)


def test_minibatches_come_near_the_optimum(key):
    schedule = optax.cosine_decay_schedule(0.5, 2000)
    result = ps.minimize(
        mean_objective,
        zeros(),
        optax.sgd(schedule),
        steps=2000,
        data=PROBLEM.data(),
        batch_size=7,
        key=key,
    )
    best = problems.optimum(PROBLEM).objective
    assert problems.objective(PROBLEM, result.params) - best < 1e-3 * TOTAL


# Composition.


def test_equal_calls_share_one_program():
    calls = []

    def counted(w):
        calls.append(1)
        return bowl(w)

    for start in (jnp.zeros(2), jnp.ones(2)):
        ps.minimize(counted, start, SGD, steps=3)
    traced = len(calls)
    ps.minimize(counted, 2 * jnp.ones(2), SGD, steps=3)
    assert len(calls) == traced


def test_under_jit_and_vmap():
    starts = jnp.array([[0.0, 0.0], [5.0, 5.0], [-1.0, 2.0]])

    def run(start):
        return ps.minimize(bowl, start, SGD, steps=20)

    together = jax.jit(jax.vmap(run))(starts)
    alone = [run(start) for start in starts]
    chex.assert_trees_all_close(
        together, jax.tree.map(lambda *parts: jnp.stack(parts), *alone), rtol=1e-15
    )


# The bar.


def test_a_bar_changes_nothing_but_the_screen(capsys):
    pytest.importorskip("tqdm", reason="the bar is in the extra `progress`")
    data = PROBLEM.data()
    quiet = ps.minimize(mean_objective, zeros(), ADAM, steps=60, data=data)
    assert capsys.readouterr() == ("", "")
    loud = ps.minimize(mean_objective, zeros(), ADAM, steps=60, data=data, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "60/60" in err
    assert "objective=" in err
    chex.assert_trees_all_close(loud.params, quiet.params, rtol=1e-13)
    np.testing.assert_allclose(loud.trace.objective, quiet.trace.objective, rtol=1e-13)


def test_a_bar_without_steps(capsys):
    pytest.importorskip("tqdm", reason="the bar is in the extra `progress`")
    result = ps.minimize(bowl, jnp.ones(2), SGD, steps=0, progress=True)
    np.testing.assert_array_equal(result.params, np.ones(2))
    assert result.trace.objective.shape == (0,)
    capsys.readouterr()


def test_a_missing_tqdm_is_named_with_its_extra(monkeypatch):
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"probsoftmax\[progress\]"):
        ps.minimize(bowl, jnp.zeros(2), SGD, steps=3, progress=True)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps: expected a number >= 0, got -1"),
        ({"steps": 1, "batch_size": 5}, "batch_size: expected data and a key"),
        (
            {"steps": 1, "batch_size": 5, "data": PROBLEM.data()},
            "batch_size: expected data and a key",
        ),
        (
            {"steps": 1, "batch_size": 0, "data": PROBLEM.data(), "key": jax.random.key(0)},
            "batch_size: expected a number >= 1, got 0",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ps.minimize(mean_objective, zeros(), SGD, **arguments)


def test_a_runaway_objective_shows_in_the_trace():
    """Nothing raises inside a compiled loop: the trace says when it happened."""
    result = ps.minimize(bowl, jnp.ones(2), optax.sgd(1e6), steps=100)
    finite = np.isfinite(result.trace.objective)
    assert finite[0]
    assert not finite[-1]
