"""Row blocks: the same optimum, the same claims, and nothing that has a number for every row and class."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import probsoftmax as ps
from probsoftmax import Status
from probsoftmax.solvers.problem import make_problem
from probsoftmax.solvers.row_blocks import in_row_blocks

N, D, K, BLOCK = 101, 3, 4, 16
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, D)) * [1, 2, 0.3]
LABELS = np.argmax(FEATURES @ RNG.normal(size=(D, K)) + 2 * RNG.gumbel(size=(N, K)), axis=1)
SOFT = RNG.dirichlet(np.ones(K), N)
WEIGHTS = RNG.gamma(1.0, size=N)
WEIGHTS[::7] = 0
SOLVERS = [ps.Newton, ps.NewtonCG, ps.LBFGS]


def problem(labels=LABELS):
    """An odd number of rows, some of them of weight 0, which hold NaN."""
    features = np.where(WEIGHTS[:, None] > 0, FEATURES, np.nan) + 3
    return ps.Data(jnp.asarray(features), jnp.asarray(labels), jnp.asarray(WEIGHTS), K)


def assert_same_optimum(fit, whole):
    assert fit.status == whole.status == Status.CONVERGED
    rounding = 64 * np.finfo(float).eps * whole.objective
    assert abs(fit.objective - whole.objective) <= rounding  # the tolerance is far below it
    for part, other in zip(fit.params, whole.params, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_optimum_is_that_without_blocks(solver):
    """With a prior and without; where no finite maximum exists, that is seen too."""
    blocked = solver(row_block=BLOCK)
    for tau in (0.0, 0.3):
        prior = ps.GaussianPrior(tau)
        fit, whole = (ps.fit_map(problem(), prior, solver=each) for each in (blocked, ps.Newton()))
        assert_same_optimum(fit, whole)
        assert jnp.isinf(fit.gap) == (tau == 0)
    separated = np.digitize(FEATURES[:, 1], [-2.0, 0.0, 2.0])
    assert ps.fit_mle(problem(separated), solver=blocked).status == Status.SEPARATED


def test_labels_that_are_probabilities_and_many_precisions():
    precision, mean = RNG.uniform(0.1, 3, (D, K)), RNG.normal(size=(D, K))
    prior = ps.GaussianPrior(precision, np.arange(1.0, K + 1), mean)
    solvers = (ps.LBFGS(row_block=BLOCK), ps.Newton())
    assert_same_optimum(*(ps.fit_map(problem(SOFT), prior, solver=each) for each in solvers))


def test_a_gap_is_a_bound_wherever_the_fit_stops():
    """After any number of steps, none among them; from a start whose biases are far off as well."""
    prior, far = ps.GaussianPrior(0.3), ps.Params(jnp.ones((D, K)), 9 * jnp.arange(K, dtype=float))
    best = ps.fit_map(problem(), prior, solver=ps.Newton())
    for init in (None, far):
        for steps in range(5):
            solver = ps.LBFGS(max_steps=steps, row_block=BLOCK)
            fit = ps.fit_map(problem(), prior, solver=solver, init=init)
            excess = fit.objective - best.objective
            assert fit.status == Status.MAX_STEPS
            assert 0 < excess <= fit.gap < jnp.inf
            np.testing.assert_allclose(
                fit.objective, ps.map_objective(fit.params, problem(), prior), rtol=1e-12
            )


def test_a_path_is_certified_and_its_passes_are_few():
    precisions = 10.0 ** np.array([0.0, 3.0, -1.0, 2.0, 1.0])
    path = ps.fit_path(problem(), precisions, solver=ps.LBFGS(tolerance=1e-6, row_block=BLOCK))
    assert jnp.all(path.status == Status.CONVERGED)
    assert jnp.all(path.gap <= 1e-6 * WEIGHTS.sum())
    for tau, objective, gap in zip(precisions, path.objective, path.gap, strict=True):
        best = ps.fit_map(problem(), ps.GaussianPrior(tau), solver=ps.Newton()).objective
        rounding = 64 * np.finfo(float).eps * best
        assert -rounding <= objective - best <= gap + rounding
    # A fit's first look and its certificate, and searches that seldom need a second trial.
    assert jnp.sum(path.passes) <= 1.5 * jnp.sum(path.steps) + 2.5 * len(precisions) + 2


def test_lanes_and_derivatives_go_by_blocks_too():
    """Of fits to soft labels, in precision, weights and labels, mapped over the first two."""

    def loss(row_block, tau, weights, labels):
        data = ps.Data(jnp.asarray(FEATURES), labels, weights, K)
        fit = ps.fit_map(data, ps.GaussianPrior(tau), solver=ps.Newton(row_block=row_block))
        return jnp.sum(fit.params.weights**2) + 0.1 * fit.objective

    def slopes(row_block):
        of_lane = jax.value_and_grad(partial(loss, row_block), argnums=(0, 1, 2))
        lanes = jnp.array([0.3, 2.0]), jnp.stack([jnp.ones(N), jnp.asarray(WEIGHTS)])
        return jax.jit(jax.vmap(of_lane, in_axes=(0, 0, None)))(*lanes, jnp.asarray(SOFT))

    chex.assert_trees_all_close(slopes(BLOCK), slopes(None), rtol=1e-9, atol=1e-10)


def largest(jaxpr):
    """The size of the largest array that is computed, in whatever is called from where."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size for variable in equation.outvars]
        for inner in jax.tree.leaves(equation.params, is_leaf=is_program):
            if is_program(inner):
                sizes.append(largest(getattr(inner, "jaxpr", inner)))
    return max(sizes)


def is_program(parameter):
    return isinstance(parameter, (Jaxpr, ClosedJaxpr))


def test_nothing_has_a_number_for_every_row_and_class():
    """Nor the pairs of L-BFGS, nor a Hessian: they have fewer numbers here. Nothing is compiled, or run."""
    n, d, k, block = 500, 2, 20, 20
    data = ps.make_data(RNG.normal(size=(n, d)), np.arange(n) % k)
    taus, blocked = jnp.array([1.0, 10.0]), ps.LBFGS(row_block=block)

    def fit(solver, tau):
        return ps.fit_map(data, ps.GaussianPrior(tau), solver=solver).objective

    programs = {
        "path": lambda: ps.fit_path(data, taus, solver=blocked),
        "folds": lambda: ps.cross_validate(data, taus, folds=np.arange(n) % 2, solver=blocked),
        "derivative": lambda: jax.grad(partial(fit, blocked))(1.0),
    }
    for solver in SOLVERS:  # the prior is an argument: maximum likelihood is the same program
        programs[str(solver)] = partial(fit, solver(row_block=block), 1.0)
    for name, program in programs.items():
        assert largest(jax.make_jaxpr(program)().jaxpr) < k * n, name
    assert largest(jax.make_jaxpr(partial(fit, ps.LBFGS(), 1.0))().jaxpr) >= k * n


@pytest.mark.parametrize("bad", [0, -5])
def test_a_block_has_rows(bad):
    with pytest.raises(ValueError, match="row_block: expected None or a number >= 1"):
        ps.LBFGS(row_block=bad)


def test_a_block_that_holds_all_rows_is_no_block():
    start = ps.init_params(D, K, float)
    whole = make_problem(problem(), ps.GaussianPrior(0.3), start, standardise=True)
    assert in_row_blocks(whole, N) is whole
    assert in_row_blocks(whole, N - 1).features.shape == (2, D + 1, (N + 1) // 2)
