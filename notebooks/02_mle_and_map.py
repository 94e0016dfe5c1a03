# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Maximum likelihood and maximum a posteriori
#
# The same data, fitted twice: once by asking only which coefficients make the labels most probable, once with
# a prior that has an opinion about coefficients. This notebook shows what the prior buys, what happens
# without it when the classes separate, and how its one number translates into other packages' knobs. Every
# fit comes with a certificate, and we read it aloud.
#
# To run it: `pip install "probsoftmax[plots,sklearn]"`. The first notebook is about the likelihood itself.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.colors import to_rgb
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps

jax.config.update("jax_enable_x64", True)  # to compare with other packages digit by digit

COLOURS = [
    "#0072B2",
    "#D55E00",
    "#009E73",
]  # safe for colour-blind eyes; classes have markers as well
MARKERS = ["o", "s", "^"]
plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "figure.dpi": 80,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "legend.frameon": False,
    }
)

# %% [markdown]
# ## The data
#
# Three clouds of points that overlap: 60 points to learn from, 4000 to judge by.


# %%
def clouds(rng, n, spread=1.0, noise_features=0):
    """n points of three classes in the plane, and columns that say nothing."""
    centres = np.array([[-1.2, 0.0], [1.2, 0.0], [0.0, 1.6]])
    y = rng.integers(0, 3, n)
    x = centres[y] + spread * rng.standard_normal((n, 2))
    return ps.make_data(np.hstack([x, rng.standard_normal((n, noise_features))]), y, num_classes=3)


rng = np.random.default_rng(1)
train, test = clouds(rng, 60), clouds(rng, 4000)
print("train", train.features.shape, " test", test.features.shape, " classes", train.num_classes)

# %% [markdown]
# ## Bayes' rule, with a minus sign
#
# The posterior is likelihood times prior. Take minus the logarithm: a summed cross-entropy, plus half a
# precision $\tau$ times the squared coefficients. That is the whole story of L2 regularisation.
#
# $$-\log p(W \mid X, y) = \underbrace{-\log p(y \mid X, W)}_{\text{mle\_objective}}
# + \underbrace{\tfrac12 \tau \lVert W \rVert^2}_{\text{prior}} + \text{const}$$
#
# The constant really is one: the same at any two points.

# %%
prior = ps.GaussianPrior(precision=3.0)
here = ps.Params(jnp.array([[1.0, -1.0, 0.5], [0.0, 0.2, 0.3]]), jnp.array([0.1, 0.0, -0.1]))
there = ps.Params(-2 * here.weights, here.bias)
constants = []
for params in (here, there):
    nll = ps.mle_objective(params, train)
    penalty = 0.5 * 3.0 * jnp.sum(params.weights**2)
    objective = ps.map_objective(params, train, prior)
    constants.append(-ps.log_joint(params, train, prior) - objective)
    print(
        f"{nll:8.4f} + {penalty:8.4f} = {objective:8.4f}   -log joint - objective = {constants[-1]:.6f}"
    )
    np.testing.assert_allclose(nll + penalty, objective, rtol=1e-12)

np.testing.assert_allclose(*constants, rtol=1e-12)

# %% [markdown]
# ## Two fits, and their certificates
#
# A fit is a tuple of arrays. `gap` bounds, in nats, how far its objective is from the minimum, whatever the
# solver did; it needs a prior (a flat one gives no bound, and the fit is judged by its Newton decrement
# instead). `status` is the verdict.


# %%
def read_aloud(name, fit):
    """The certificate of a fit in a sentence."""
    bound = f"at most {fit.gap:.0e} nats above the minimum" if jnp.isfinite(fit.gap) else "no bound"
    status = ps.Status(int(fit.status)).name
    print(f"{name}: {status}, {bound}; {fit.steps} steps, objective {fit.objective:.6f}")


mle = ps.fit_mle(train)
map_3 = ps.fit_map(train, prior)
read_aloud("MLE     ", mle)
read_aloud("MAP(3)  ", map_3)

assert mle.status == ps.Status.CONVERGED
assert map_3.status == ps.Status.CONVERGED
assert map_3.gap < 1e-9

# %% [markdown]
# The bound is far below the last digit of the objective, which it may be: it is computed from the gradient,
# not as a difference of two objectives.
#
# Maximum likelihood explains the 60 points best, as it must, and pays for it on the others. The prior costs a
# little on the left and earns more on the right. Accuracy hardly notices: the boundaries barely move. What
# differs is how *sure* the model is.


# %%
def scores_of(name, params, train, test):
    """One line: how well, and how large."""
    nll = [float(ps.negative_log_likelihood(params, d)) / len(d.labels) for d in (train, test)]
    accuracy = np.mean(ps.predict(params, test.features) == test.labels)
    norm = np.linalg.norm(params.weights)
    print(f"{name:10}{nll[0]:16.3f}{nll[1]:16.3f}{accuracy:16.3f}{norm:10.2f}")
    return nll


map_30 = ps.fit_map(train, ps.GaussianPrior(30.0))
fits = {"MLE": mle, "MAP, τ = 3": map_3, "MAP, τ = 30": map_30}
print(f"{'':10}{'NLL/row, train':>16}{'held out':>16}{'accuracy':>16}{'norm W':>10}")
table = {name: scores_of(name, fit.params, train, test) for name, fit in fits.items()}

assert table["MLE"][0] < table["MAP, τ = 3"][0] < table["MAP, τ = 30"][0]
assert table["MAP, τ = 3"][1] < min(table["MLE"][1], table["MAP, τ = 30"][1])


# %%
def picture(ax, params, data, title):
    """The probabilities as a mixture of three colours, boundaries in white, and the data."""
    side = np.linspace(-4.5, 4.5, 180)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    p = np.asarray(ps.predict_proba(params, grid))
    pale = 0.35 + 0.65 * np.array([to_rgb(colour) for colour in COLOURS])
    ax.imshow(p @ pale, origin="lower", extent=(-4.5, 4.5, -4.5, 4.5), interpolation="bilinear")
    for j in range(3):
        others = np.delete(p, j, axis=-1).max(axis=-1)
        ax.contour(side, side, p[..., j] - others, levels=[0], colors="white", linewidths=1.2)
        mine = np.asarray(data.labels) == j
        ax.scatter(
            *np.asarray(data.features)[mine].T,
            marker=MARKERS[j],
            color=COLOURS[j],
            edgecolor="black",
            linewidth=0.6,
            s=26,
            label=f"class {j}",
        )
    ax.set(title=title, xlabel="feature 1", xlim=(-4.5, 4.5), ylim=(-4.5, 4.5))


fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True)
for ax, (name, fit) in zip(axes, fits.items(), strict=True):
    picture(ax, fit.params, train, f"{name}: {table[name][1]:.3f} nats held out")
axes[0].set(ylabel="feature 2")
axes[0].legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# ## Maximum likelihood is a prior of precision zero
#
# Not in the limit only: it is one code path, and precision 0 gives the very same numbers. On the way there
# the fit moves in proportion to $\tau$.

# %%
flat = ps.fit_map(train, ps.GaussianPrior(0.0))
print("largest difference at precision 0:", np.abs(flat.params.weights - mle.params.weights).max())
assert np.array_equal(flat.params.weights, mle.params.weights)

moved = []
for tau in (1e-3, 1e-4, 1e-5):
    close = ps.fit_map(train, ps.GaussianPrior(tau))
    moved.append(float(np.abs(close.params.weights - mle.params.weights).max()))
    print(f"precision {tau:.0e}: differs by {moved[-1]:.2e}")
np.testing.assert_allclose(np.divide(moved[:-1], moved[1:]), 10, rtol=0.05)

# %% [markdown]
# ## Classes that separate: there is no maximum
#
# Pull the clouds together until straight lines can part the 60 training points. Doubling $W$ then makes every
# label more probable, and doubling it again more probable still. The likelihood climbs towards 1 and arrives
# nowhere.
#
# `fit_mle` says so: `SEPARATED`. Its proof is the iterate itself, which puts every point on its side by a
# positive margin.

# %%
rng = np.random.default_rng(36)
apart, apart_test = clouds(rng, 60, spread=0.55), clouds(rng, 4000, spread=0.55)
runaway = ps.fit_mle(apart)
tame = ps.fit_map(apart, ps.GaussianPrior(0.3))
read_aloud("MLE     ", runaway)
read_aloud("MAP(0.3)", tame)

eta = np.asarray(ps.logits(runaway.params, apart.features))
of_label = jax.nn.one_hot(apart.labels, 3, dtype=bool)
margins = eta[of_label] - np.where(of_label, -np.inf, eta).max(axis=1)
print(f"smallest margin of any row at the MLE's iterate: {margins.min():.3f}")
for factor in (1, 2, 4, 8, 16):
    scaled = ps.Params(factor * runaway.params.weights, factor * runaway.params.bias)
    print(f"  W times {factor:2}: NLL {ps.mle_objective(scaled, apart):.3e}")

assert runaway.status == ps.Status.SEPARATED
assert margins.min() > 0
assert tame.status == ps.Status.CONVERGED
assert tame.gap < 1e-9

# %% [markdown]
# Plain gradient descent never tells. It just goes on: every tenfold of steps adds to the norm of $W$ (in the
# end by a constant: it grows like the logarithm of their number), no stopping time is better founded than
# another, and what you get is decided by your patience. With a prior the same descent comes to rest.

# %%
descent = optax.sgd(0.5)


@partial(jax.jit, static_argnames="steps")
def stride(params, steps):
    """So many steps on the mean objective, with precision 0 (MLE) and 0.3 (MAP) side by side."""

    def descend(tau, params):
        def mean_objective(params):
            return ps.map_objective(params, apart, ps.GaussianPrior(tau)) / len(apart.labels)

        return ps.minimize(mean_objective, params, descent, steps=steps).params

    return jax.vmap(descend)(jnp.array([0.0, 0.3]), params)


walk, steps, path = jax.tree.map(lambda w: jnp.stack([w, w]), ps.init_params(2, 3)), [0], []
for length in (1, 40, 1600):
    while steps[-1] < 40 * length:
        walk = stride(walk, length)
        steps.append(steps[-1] + length)
        path.append(walk)
steps = np.array(steps[1:])
path = jax.tree.map(lambda *walks: jnp.stack(walks), *path)  # (looks, MLE or MAP, ...)

norms = np.linalg.norm(path.weights, axis=(2, 3))
tens = np.interp([40, 400, 4000, 40000], steps, norms[:, 0])
print("norm of W under MLE after 40, 400, 4000, 40 000 steps:", np.round(tens, 2))
print("                               more at each tenfold:", np.round(np.diff(tens), 2))
print(
    f"under MAP at the end {norms[-1, 1]:.6f}, at the optimum {np.linalg.norm(tame.params.weights):.6f}"
)

assert min(np.diff(tens)) > 1
np.testing.assert_allclose(norms[-1, 1], np.linalg.norm(tame.params.weights), rtol=1e-6)


# %%
@jax.jit
def mean_nll(params, data):
    """NLL per row; for any number of parameter sets at once."""
    if params.weights.ndim > 2:
        return jax.vmap(mean_nll, in_axes=(0, None))(params, data)
    return ps.mle_objective(params, data) / len(data.labels)


judged = np.asarray(mean_nll(path, apart_test))
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for column, (name, colour, dashes) in enumerate(
    (("MLE", COLOURS[1], "-"), ("MAP", COLOURS[0], "--"))
):
    left.plot(steps, norms[:, column], dashes, color=colour, label=name)
    right.plot(steps, judged[:, column], dashes, color=colour, label=name)
left.set(xscale="log", xlabel="steps of gradient descent", ylabel="norm of W")
left.set(title="Without a prior W never settles,")
left.legend()
right.set(xscale="log", xlabel="steps of gradient descent", ylabel="NLL per held-out row")
right.set(title="and its certainty is punished", ylim=(0, None))
right.legend()
plt.show()

assert judged[-1, 0] > 1.5 * judged[:, 0].min()
assert judged[-1, 1] < judged[-1, 0]

# %% [markdown]
# Nor does a small gradient prove anything. In this sample only *some* of the classes can be parted, so the
# objective stays away from 0 while the gradient all but vanishes. A solver that looks at gradients calls it
# converged; the certificate does not, and the held-out points show who is right.

# %%
rng = np.random.default_rng(3)
partly, partly_test = clouds(rng, 60, spread=0.7), clouds(rng, 4000, spread=0.7)
quasi = ps.fit_mle(partly)
print(f"objective {quasi.objective:.4f}, largest entry of the gradient {quasi.gradient_norm:.1e}")
read_aloud("MLE   ", quasi)
careful = ps.fit_map(partly, ps.GaussianPrior(1.0))
read_aloud("MAP(1)", careful)
print(f"{'':10}{'NLL/row, train':>16}{'held out':>16}{'accuracy':>16}{'norm W':>10}")
lost = scores_of("MLE", quasi.params, partly, partly_test)
kept = scores_of("MAP", careful.params, partly, partly_test)

assert quasi.status == ps.Status.SEPARATED
assert lost[1] > 2 * kept[1]

# %% [markdown]
# ## One number, many names
#
# Other packages write the same prior on other scales. The precision here stands beside a *sum* over the
# examples, so it means the same whatever their number. scikit-learn's `C` is its inverse. With three classes
# or more the fits agree digit by digit:

# %%
x, y = np.asarray(train.features), np.asarray(train.labels)
for C in (0.1, 1.0, 100.0):
    theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, y)
    ours = ps.fit_map(train, ps.GaussianPrior(ps.precision_from_sklearn(C)))
    difference = np.abs(ours.params.weights - theirs.coef_.T).max()
    print(
        f"C {C:5}: precision {ps.precision_from_sklearn(C):5}, largest difference {difference:.1e}"
    )
    assert difference < 1e-8

# %% [markdown]
# With two classes there is a factor of two. scikit-learn then keeps a single vector, the *difference*
# $w = w_1 - w_0$, and penalises $\tfrac12 \lVert w \rVert^2$. The symmetric form splits it into halves
# $\mp w / 2$, whose squares add up to only half of that, so the same prior has twice the precision:
# $\tau = 2 / C$. To see it no second fit is needed: at scikit-learn's solution the gradient of our objective
# has to vanish.

# %%
two = ps.make_data(x, (y == 0).astype(int))
theirs = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=1000)
theirs.fit(x, two.labels)
halves = np.stack([-theirs.coef_[0], theirs.coef_[0]], axis=1) / 2
solution = ps.Params(halves, np.array([-0.5, 0.5]) * theirs.intercept_)
slope = jax.jit(jax.grad(ps.map_objective))
for factor in (1, 2):
    prior = ps.GaussianPrior(factor * ps.precision_from_sklearn(1.0))
    gradient = slope(solution, two, prior)
    largest = max(float(np.abs(leaf).max()) for leaf in gradient)
    print(f"precision {factor}/C: largest entry of the gradient {largest:.1e}")

assert largest < 1e-8

# %% [markdown]
# Weight decay in a training loop acts on the *mean* loss: each step adds `decay * W` to its gradient. So the
# precision is $n$ times the decay, and it shrinks in proportion when the data set grows. glmnet's $\lambda$
# stands on the same scale. The bias must be left out of it (a mask), or it has a prior, too.

# %%
decay, n = 0.05, len(train.labels)
not_the_bias = ps.Params(weights=True, bias=False)
decayed = optax.chain(optax.add_decayed_weights(decay, mask=not_the_bias), optax.sgd(0.5))
loop = ps.minimize(mean_nll, ps.init_params(2, 3), decayed, steps=2000, data=train)
same = ps.fit_map(train, ps.GaussianPrior(ps.precision_from_weight_decay(decay, n)))
difference = np.abs(loop.params.weights - same.params.weights).max()
print(
    f"decay {decay} on the mean of {n}: precision {decay * n}, largest difference {difference:.1e}"
)

assert ps.precision_from_weight_decay(decay, n) == ps.precision_from_glmnet(decay, n)
assert difference < 1e-8

# %% [markdown]
# AdamW's decay is another matter. It shrinks the weights outside of the gradient, whose scale Adam has
# normalised away, so where it comes to rest is no optimum of any objective of this kind. Minimise the
# penalised objective itself with Adam instead.

# %%
adamw = optax.adamw(optax.cosine_decay_schedule(0.05, 3000), weight_decay=decay, mask=not_the_bias)
adam = optax.adam(optax.cosine_decay_schedule(0.05, 3000))
prior = ps.GaussianPrior(ps.precision_from_weight_decay(decay, n))


def penalised(params, data):
    """The MAP objective on the scale of the mean."""
    return ps.map_objective(params, data, prior) / len(data.labels)


for name, objective, optimizer in (
    ("AdamW", mean_nll, adamw),
    ("Adam on the objective", penalised, adam),
):
    end = ps.minimize(objective, ps.init_params(2, 3), optimizer, steps=3000, data=train)
    excess = ps.map_objective(end.params, train, prior) - same.objective
    print(
        f"{name:22} {excess:.1e} nats above the optimum, norm of W {np.linalg.norm(end.params.weights):.3f}"
    )
print(f"{'the optimum':22} {'':28} norm of W {np.linalg.norm(same.params.weights):.3f}")

assert abs(excess) < 1e-6

# %% [markdown]
# ## A whole sweep in one call
#
# How strong should the prior be? Let held-out data say. To make it matter, give the model ten more features
# that are pure noise. A prior is a tuple of arrays, so `vmap` maps over it: 42 fits in one compiled program,
# each with its own certificate. The first has precision 0, so it is maximum likelihood (and has no bound). A
# precision may be one number, or broadcast to the coefficients; here it is a column, one number a feature.

# %%
rng = np.random.default_rng(0)
noisy, noisy_test = clouds(rng, 60, noise_features=10), clouds(rng, 4000, noise_features=10)
precisions = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-3, 1e3, 41)])
by_feature = precisions[:, None, None] * jnp.ones((12, 1))
fit_all = jax.jit(jax.vmap(lambda tau: ps.fit_map(noisy, ps.GaussianPrior(tau))))
sweep = fit_all(by_feature)
print("weights", sweep.params.weights.shape, " largest gap", f"{sweep.gap[1:].max():.0e}", "nats")
print("all converged:", bool((sweep.status == ps.Status.CONVERGED).all()))

assert (sweep.status == ps.Status.CONVERGED).all()
assert sweep.gap[1:].max() < 1e-9

# %%
on_train, on_test = (np.asarray(mean_nll(sweep.params, d)) for d in (noisy, noisy_test))
best = int(on_test.argmin())
tau, swept = np.asarray(precisions)[1:], slice(1, None)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
left.plot(tau, on_train[swept], "--", color=COLOURS[0], label="training rows")
left.plot(tau, on_test[swept], "-", color=COLOURS[1], label="held-out rows")
left.plot(precisions[best], on_test[best], "o", color="black")
left.text(
    precisions[best], on_test[best] - 0.04, f"τ = {precisions[best]:.2g}", va="top", ha="center"
)
for level, name, place in (
    (on_test[0], "MLE, held out", "top"),
    (np.log(3), "log 3: knowing nothing", "bottom"),
):
    left.axhline(level, color="grey", linewidth=0.8)
    left.text(1e3, level, name, ha="right", va=place, color="0.35")
left.set(xscale="log", xlabel="prior precision τ", ylabel="NLL per row", ylim=(0.2, 1.55))
left.set(title="Too weak, about right, too strong")
left.legend(loc="lower right")

paths = np.asarray(sweep.params.weights)[swept]
right.plot(tau, paths[:, 2:].reshape(len(tau), -1), color="0.75", linewidth=0.7)
for j in range(3):
    for i, dashes in enumerate(("-", "--")):
        right.plot(
            tau, paths[:, i, j], dashes, color=COLOURS[j], label=f"feature {i + 1}, class {j}"
        )
right.axvline(float(precisions[best]), color="grey", linewidth=0.8)
right.set(xscale="log", xlabel="prior precision τ", ylabel="coefficient")
right.set(title="Coefficients (grey: those of the noise)")
right.legend(fontsize=7, loc="upper right")
plt.show()

print(
    f"held out: MLE {on_test[0]:.3f}, best MAP {on_test[best]:.3f} at precision {precisions[best]:.2g}"
)
assert 1 < best < 41
assert (np.diff(on_train) > 0).all()
assert on_test[best] < 0.6 * on_test[0]

# %% [markdown]
# One number for all is a compromise. Say that we know which columns to distrust: keep a precision of 1 on the
# two that speak, and sweep that of the other ten alone (the same compiled program). Most of the damage is
# gone.

# %%
distrust = fit_all(by_feature.at[:, :2].set(1.0))
informed = np.asarray(mean_nll(distrust.params, noisy_test))
lowest = int(informed.argmin())
print(f"held out: one precision for all {on_test[best]:.3f}", end=", ")
print(f"one for the noise {informed[lowest]:.3f} (at {precisions[lowest]:.4g})")

assert (distrust.status == ps.Status.CONVERGED).all()
assert informed.min() < 0.9 * on_test[best]

# %% [markdown]
# ## Any optimiser, one optimum
#
# The objective is convex, so all roads lead to the same place, some of them slowly. `FirstOrder` makes any
# optax transformation a solver of the same `fit_map`, and judges where it got to by the same certificate. The
# last two columns are what was promised and what is true: the bound holds, and it is close.

# %%
prior, start = ps.GaussianPrior(3.0), ps.init_params(2, 3)
reference = ps.fit_map(train, prior)
few_steps = ps.FirstOrder(optax.sgd(0.5), steps=20)
adam_steps = ps.FirstOrder(optax.adam(optax.cosine_decay_schedule(0.3, 500)), steps=500)
roads = {
    "Newton (the default)": reference,
    "optax Adam": ps.fit_map(train, prior, solver=adam_steps),
    "optax SGD": ps.fit_map(train, prior, solver=few_steps, init=start),
}
print(f"{'':22}{'status':>12}{'steps':>7}{'passes':>8}{'gap, promised':>16}{'excess, true':>15}")
for name, fit in roads.items():
    excess = float(fit.objective - reference.objective)
    status = ps.Status(int(fit.status)).name
    print(f"{name:22}{status:>12}{fit.steps:7}{fit.passes:8}{fit.gap:16.1e}{abs(excess):15.1e}")
    assert excess <= fit.gap + 1e-12
    assert fit.status == (ps.Status.MAX_STEPS if name == "optax SGD" else ps.Status.CONVERGED)

# %% [markdown]
# Twenty steps of gradient descent were too few, and the certificate says by how much. Go on from there,
# twenty at a time:

# %%
fit = roads["optax SGD"]
for count in range(40, 161, 20):
    fit = ps.fit_map(train, prior, solver=few_steps, init=fit.params)
    truth = abs(float(fit.objective - reference.objective))
    print(
        f"after {count:3} steps: at most {fit.gap:.0e} nats above the minimum; in truth {truth:.0e}"
    )
    assert truth <= fit.gap + 1e-12

assert fit.gap < 1e-6

# %% [markdown]
# `minimize` is the bare loop behind it: any objective, any optax optimiser (also those with a line search),
# and the trace of what happened. It certifies nothing.

# %%
lbfgs = ps.minimize(
    lambda params: ps.map_objective(params, train, prior), start, optax.lbfgs(), steps=30
)
print("objective:", np.array(lbfgs.trace.objective[:8]).round(4), "...")
excess = float(ps.map_objective(lbfgs.params, train, prior) - reference.objective)
print(
    f"after 30 steps: gradient {lbfgs.trace.gradient_norm[-1]:.0e}, {abs(excess):.0e} nats from the optimum"
)

assert abs(excess) < 1e-9

# %% [markdown]
# ## And the hinge?
#
# Keep the prior, exchange the likelihood for a hinge: a support vector machine. It has no probabilities,
# hence no `fit_` function of its own, but `minimize` takes any objective. (The hinge has corners, so the rate
# of the steps must decay.)

# %%
svm_prior = ps.GaussianPrior(3.0)


def svm(params):
    """Sum of hinges plus the same penalty."""
    return ps.svm_objective(params, train, svm_prior)


decaying = optax.adam(optax.cosine_decay_schedule(0.1, 3000))
machine = ps.minimize(svm, ps.init_params(2, 3), decaying, steps=3000)
bayes = ps.fit_map(train, svm_prior)
print(f"SVM objective {svm(machine.params):.4f}; at the MAP it is {svm(bayes.params):.4f}")

assert svm(machine.params) < svm(bayes.params)

# %% [markdown]
# The boundaries are nearly the same. The difference is who takes part: once a point has its margin the hinge
# forgets it (its gradient is exactly 0), while every point goes on informing the probabilities.


# %%
def pull_of_rows(loss, params):
    """How strongly each row pulls on its scores."""
    eta = ps.logits(params, train.features)
    return np.linalg.norm(jax.grad(lambda e: loss(e, train.labels).sum())(eta), axis=1)


hinge_pull = pull_of_rows(ps.weston_watkins_hinge, machine.params)
nll_pull = pull_of_rows(ps.softmax_cross_entropy_with_integer_labels, bayes.params)
print(
    f"rows that pull on nothing: hinge {np.sum(hinge_pull == 0)} of {n}, cross-entropy {np.sum(nll_pull == 0)}"
)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), sharey=True)
for ax, params, pull, name in (
    (axes[0], bayes.params, nll_pull, "MAP"),
    (axes[1], machine.params, hinge_pull, "SVM"),
):
    nll = float(mean_nll(params, test))
    picture(ax, params, train, f"{name}, τ = 3: {nll:.3f} nats held out")
    idle = np.asarray(train.features)[pull == 0]
    ax.scatter(*idle.T, s=90, facecolor="none", edgecolor="black", linewidth=0.8)
axes[0].set(ylabel="feature 2")
axes[1].text(-4.3, -4.2, "circled: pulls on nothing", fontsize=9)
plt.show()

agree = np.mean(
    ps.predict(machine.params, test.features) == ps.predict(bayes.params, test.features)
)
print(f"held-out points on which the two agree: {agree:.1%}")
assert agree > 0.9
assert (nll_pull > 0).all()
assert np.sum(hinge_pull == 0) > 10

# %% [markdown]
# At this margin of 1 the softmax of the machine's scores is not even bad. But that is luck, and not learned:
# stretch scores and margin together, and by its own objective the machine is the very same, while the
# probabilities fall apart. A hinge knows an order and no scale; a likelihood knows both.

# %%
for margin in (1, 3, 10):
    eta = margin * ps.logits(machine.params, train.features)
    hinge = ps.weston_watkins_hinge(eta, train.labels, margin=margin).sum() / margin
    scaled = jax.tree.map(lambda leaf, margin=margin: margin * leaf, machine.params)
    nll = float(mean_nll(scaled, test))
    print(
        f"margin {margin:2}: hinge in margins {hinge:.4f}, NLL of the softmax per held-out row {nll:.3f}"
    )
    if margin == 1:
        same_hinge = hinge
    np.testing.assert_allclose(hinge, same_hinge, rtol=1e-12)

assert nll > 3 * mean_nll(bayes.params, test)

# %% [markdown]
# ## What to take home
#
# - A prior is not a trick: it is the half of Bayes' rule that maximum likelihood leaves out, and L2
#   regularisation is its Gaussian case.
# - Where classes separate no maximum likelihood estimate exists. `SEPARATED` says so; a small gradient does not
#   deny it.
# - Precision is on the scale of the summed loss: $1/C$, $n \cdot$ decay, $n\lambda$; and $2/C$ with two classes.
# - A sweep is one `vmap`. Choose the precision on data that the fit has not seen.
# - Believe a fit by its `gap`, not by its optimiser's reputation.
