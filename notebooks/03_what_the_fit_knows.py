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
# # What the fit knows, and what it does not
#
# A fit is one set of coefficients, and sixty points do not determine one set. This notebook asks how much is
# left open and what follows from it: for predictions, for the choice of the prior, for tests and intervals,
# and for probabilities that are to mean what they say. A sampler that knows nothing of our formulas is the
# referee.
#
# To run it: `pip install "probsoftmax[plots]" blackjax`. The second notebook is about the fits themselves.

# %%
from dataclasses import replace
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

import probsoftmax as ps
from probsoftmax import plots

jax.config.update("jax_enable_x64", True)  # to hold one computation against another

COLOURS = ["#0072B2", "#D55E00", "#009E73"]  # safe for colour-blind eyes; classes have markers too
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
# The clouds of the second notebook: three classes that overlap, 60 points to learn from, 4000 to judge by.


# %%
def clouds(rng, n, spread=1.0):
    """n points of three classes in the plane."""
    centres = np.array([[-1.2, 0.0], [1.2, 0.0], [0.0, 1.6]])
    y = rng.integers(0, 3, n)
    return ps.make_data(centres[y] + spread * rng.standard_normal((n, 2)), y, num_classes=3)


rng = np.random.default_rng(1)
train, test = clouds(rng, 60), clouds(rng, 4000)
rows = np.arange(60)

# %% [markdown]
# ## A posterior is a cloud of fits
#
# `laplace` puts a Gaussian around the fit: its covariance is the inverse of the curvature there. (The biases
# have a prior here as well, so that the posterior is a proper density and a sampler can be held against it
# below.) Each sample is a classifier of its own, as compatible with the 60 points as the spread of the
# posterior says.

# %%
prior = ps.GaussianPrior(precision=1.0, bias_precision=1.0)
fit = ps.fit_map(train, prior)
posterior = ps.laplace(fit.params, train, prior)
samples = ps.sample(posterior, jax.random.key(0), 1000)

deviation = jax.tree.map(jnp.sqrt, ps.marginal_variances(posterior))
print("coefficient of feature 1, class by class:", fit.params.weights[0].round(2))
print("its standard deviation by formula:       ", deviation.weights[0].round(2))
print("and among 1000 samples:                  ", samples.weights[:, 0].std(axis=0).round(2))

assert fit.status == ps.Status.CONVERGED
np.testing.assert_allclose(samples.weights[:, 0].std(axis=0), deviation.weights[0], rtol=0.1)


# %%
def boundaries(ax, weights, bias, reach, **line):
    """Where the highest score changes hands."""
    side = np.linspace(-reach, reach, 121)
    eta = np.stack(np.meshgrid(side, side), axis=-1) @ np.asarray(weights) + np.asarray(bias)
    for j in range(3):
        ahead = eta[..., j] - np.delete(eta, j, axis=-1).max(axis=-1)
        ax.contour(side, side, ahead, levels=[0], **line)


def points(ax, data, size=26):
    """The examples, a colour and a marker a class."""
    for j in range(3):
        mine = np.asarray(data.labels) == j
        ax.scatter(
            *np.asarray(data.features)[mine].T,
            marker=MARKERS[j],
            color=COLOURS[j],
            edgecolor="black",
            linewidth=0.6,
            s=size,
            zorder=3,
            label=f"class {j}",
        )


def frame(ax, reach, title):
    """A square window."""
    ax.set(title=title, xlabel="feature 1", xlim=(-reach, reach), ylim=(-reach, reach))
    ax.set_aspect("equal")


fig, axes = plt.subplots(1, 2, figsize=(9, 4.6))
for ax, reach, size in zip(axes, (4, 12), (30, 10), strict=True):
    for i in range(30):
        line = {"colors": "0.55", "linewidths": 0.6, "alpha": 0.7}
        boundaries(ax, samples.weights[i], samples.bias[i], reach, **line)
    boundaries(ax, *fit.params, reach, colors="black", linewidths=2)
    points(ax, train, size)
axes[0].set(ylabel="feature 2")
frame(axes[0], 4, "Boundaries of the fit (black), of 30 samples (grey)")
frame(axes[1], 12, "The same from farther away")
axes[0].legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# Near the points the samples agree. Farther out they fan apart: what happens there was never observed, and
# each sample extrapolates its own lines.
#
# ## Predictions far from the data
#
# The fit itself, plugged in, does not know that. Its scores grow with the distance, so it is the surer the less it
# has seen. The average over the posterior, $p(y \mid x) = \int \mathrm{softmax}(xW)\, p(W \mid X, y)\, dW$, is
# sure only of what the samples agree on; `predictive_probit` approximates it without sampling.

# %%
REACH = 12
side = np.linspace(-REACH, REACH, 140)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
distance = np.logspace(-1, 4, 60)
ray = distance[:, None] * np.array([[1.0, 0.4]]) / np.hypot(1.0, 0.4)
places = np.concatenate([grid, ray])  # one call, one compiled program

plug_in = np.asarray(ps.predict_proba(fit.params, places))
averaged = np.asarray(ps.predictive_probit(posterior, places))

fig, axes = plt.subplots(1, 3, figsize=(12, 3.9))
pale = 0.35 + 0.65 * np.array([to_rgb(colour) for colour in COLOURS])
for ax, p, title in zip(axes, (plug_in, averaged), ("plug-in", "averaged"), strict=False):
    image = (p[: len(grid)] @ pale).reshape(len(side), len(side), 3)
    ax.imshow(image, origin="lower", extent=(-REACH, REACH) * 2, interpolation="bilinear")
    highest = p[: len(grid)].max(axis=1).reshape(len(side), len(side))
    lines = ax.contour(side, side, highest, levels=[0.6, 0.9, 0.99], colors="white", linewidths=1)
    ax.clabel(lines, fmt="%.4g", fontsize=8)
    points(ax, train, 8)
    ax.plot(*ray[distance < REACH].T, color="black", linewidth=1.2)
    frame(ax, REACH, f"Probabilities, {title}")
axes[0].set(ylabel="feature 2")
for p, name, look in ((plug_in, "plug-in", "--"), (averaged, "averaged", "-")):
    axes[2].plot(distance, p[len(grid) :, 1], look, color=COLOURS[1], label=name)
axes[2].set(xscale="log", xlabel="distance from the origin along the black line", ylim=(0, 1.02))
axes[2].set(title="Probability of class 1")
axes[2].legend(loc="lower right")
plt.show()

for place in (1, 10, 100, 10_000):
    i = len(grid) + int(np.argmin(np.abs(np.log(distance / place))))
    print(f"distance {place:6}: plug-in {plug_in[i].round(3)}, averaged {averaged[i].round(3)}")

assert plug_in[-1].max() > 1 - 1e-12
assert averaged[-1].max() < 0.99
np.testing.assert_allclose(averaged.sum(axis=1), 1, rtol=1e-12)

# %% [markdown]
# ## The referee
#
# A Gaussian around the optimum is an approximation. Markov chain Monte Carlo draws from the posterior itself,
# given time, and `log_joint` is all that it needs: [BlackJAX](https://blackjax-devs.github.io/blackjax/) takes it as
# it is, pytree and all. Four chains of the No-U-Turn sampler, started from samples of Laplace's posterior and with
# its variances for a metric.

# %%
sampler = blackjax.nuts(
    partial(ps.log_joint, data=train, prior=prior),
    step_size=0.5,
    inverse_mass_matrix=jnp.concatenate([part.ravel() ** 2 for part in deviation]),
)


@jax.jit
@jax.vmap
def chain(key, start):
    """1000 draws from the posterior."""

    def step(state, key):
        state, info = sampler.step(key, state)
        return state, (state.position, info.is_divergent)

    return jax.lax.scan(step, sampler.init(start), jax.random.split(key, 1000))[1]


starts = jax.tree.map(lambda part: part[:4], samples)
draws, divergent = chain(jax.random.split(jax.random.key(1), 4), starts)
draws = ps.Params(*(np.asarray(part).reshape(-1, *part.shape[2:]) for part in draws))
at_mean = ps.shift_to_mean(posterior, train)

print(f"coefficient of feature 1{'class 0':>16}{'class 1':>9}{'class 2':>9}")
for name, values in {
    "mean of the draws": draws.weights[:, 0].mean(axis=0),
    "Laplace: the mode": posterior.mean.weights[0],
    "Laplace, shifted to the mean": at_mean.mean.weights[0],
    "deviation of the draws": draws.weights[:, 0].std(axis=0),
    "deviation by Laplace": deviation.weights[0],
}.items():
    print(f"{name:31}" + "".join(f"{value:9.2f}" for value in np.asarray(values)))

truth = draws.weights[:, 0].mean(axis=0)
assert not divergent.any()
assert np.abs(at_mean.mean.weights[0] - truth).max() < 0.1
assert np.abs(at_mean.mean.weights[0] - truth).max() < np.abs(fit.params.weights[0] - truth).max()
np.testing.assert_allclose(deviation.weights[0], draws.weights[:, 0].std(axis=0), rtol=0.1)

# %% [markdown]
# The spread is right, the place is a little off: the posterior is skewed, so its mean is not its mode.
# `shift_to_mean` moves the Gaussian by the next term of the expansion, in closed form. Among the data the shift
# bends a prediction as much as the spread does, so an average without it may be worse than none. Far away, where an
# average asks only which score is the highest, the skew itself counts as much, and it is missing from both.


# %%
def average_of(draws, features):
    """The mean over draws of the probabilities."""
    eta = features @ draws.weights + draws.bias[:, None, :]
    p = np.exp(eta - eta.max(axis=2, keepdims=True))
    return (p / p.sum(axis=2, keepdims=True)).mean(axis=0)


shifted = np.asarray(ps.predictive_probit(at_mean, places))
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
mean, sd = float(fit.params.weights[0, 1]), float(deviation.weights[0, 1])
line = np.linspace(mean - 4 * sd, mean + 5 * sd, 200)
left.hist(draws.weights[:, 0, 1], bins=50, density=True, color="0.85", label="draws of the sampler")
for centre, name, look in (
    (mean, "Laplace", "--"),
    (float(at_mean.mean.weights[0, 1]), "shifted to the mean", "-"),
):
    density = np.exp(-0.5 * ((line - centre) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    left.plot(line, density, look, color=COLOURS[0], label=name)
left.set(xlabel="coefficient of feature 1, class 1", title="A margin of the posterior")
left.set(yticks=[], xlim=(line[0], line[-1]), ylim=(0, 1.45 * density.max()))
left.legend(fontsize=8, loc="upper right")
by_draws = average_of(draws, ray[::3])
right.plot(distance, plug_in[len(grid) :, 1], ":", color=COLOURS[1], label="plug-in")
right.plot(distance, averaged[len(grid) :, 1], "--", color=COLOURS[0], label="Laplace, averaged")
right.plot(distance, shifted[len(grid) :, 1], "-", color=COLOURS[0], label="shifted, averaged")
right.plot(distance[::3], by_draws[:, 1], "o", color="0.35", ms=4, label="mean over the draws")
right.set(xscale="log", xlabel="distance", ylim=(0, 1.02), title="Probability of class 1")
right.legend(loc="lower right", fontsize=8)
plt.show()

near = test.features[:1000]
by_draws = average_of(draws, np.asarray(near))
print("mean divergence from the sampler's average, 1000 unseen points among the data:")
divergence = {}
for name, p in {
    "plug-in": ps.predict_proba(fit.params, near),
    "Laplace, averaged": ps.predictive_probit(posterior, near),
    "shifted, averaged": ps.predictive_probit(at_mean, near),
    "shifted, 4000 samples": ps.predictive_monte_carlo(at_mean, near, jax.random.key(2), 4000),
}.items():
    divergence[name] = float(ps.kl_divergence(jnp.asarray(by_draws), p).mean())
    print(f"  {name:22} {divergence[name]:.1e} nats")

assert divergence["shifted, averaged"] < 0.5 * divergence["plug-in"]

# %% [markdown]
# ## Which prior? Evidence against cross-validation
#
# The evidence $p(y \mid X, \tau)$ asks how probable the labels were before any fit. It needs no held-out rows, and
# being smooth in $\tau$ it can be climbed: `fit_evidence` does, with the gradient through the fit. Cross-validation
# asks how well each point is predicted by the others; `leave_one_out` answers that from the one fit of all points.
# The 4000 points that no fit has seen say who is right. All three are in nats for 60 points, below their best.

# %%
precisions = np.logspace(-2, 2, 25)


def judged(train):
    """Log evidence, leave-one-out and the unseen points at every precision, in nats for 60 points."""
    values = []
    for tau in precisions:
        at = ps.GaussianPrior(tau)  # flat on the biases, as by default
        params = ps.fit_map(train, at).params
        evidence = ps.log_restricted_evidence(params, train, at)
        left_out = ps.leave_one_out(params, train, at)[rows, train.labels].sum()
        values.append((evidence, left_out, ps.log_likelihood(params, test) * 60 / 4000))
    return np.array(values, dtype=float).T


curves = judged(train)
chosen, refit, highest = ps.fit_evidence(train, ps.GaussianPrior(1.0))
tau = float(chosen.precision)

fig, ax = plt.subplots(figsize=(7, 3.8))
for name, values, look, colour in zip(
    ("evidence", "leave-one-out", "4000 unseen points"),
    curves,
    ("-", "--", ":"),
    (COLOURS[0], COLOURS[1], "0.3"),
    strict=True,
):
    best = int(values.argmax())
    ax.plot(precisions, values - values[best], look, color=colour, linewidth=2, label=name)
    ax.plot(precisions[best], 0, "o", color=colour, clip_on=False, zorder=3)
    print(f"{name:20} is highest at τ = {precisions[best]:.3f}")
ax.axvline(tau, color=COLOURS[0], linewidth=1)
ax.text(0.93 * tau, 0.8, f"fit_evidence: τ = {tau:.3f}", color=COLOURS[0], ha="right")
ax.set(xscale="log", xlabel="prior precision τ", ylabel="nats below the best, for 60 points")
ax.set(ylim=(-13, 1.6))
ax.legend(loc="lower left")
plt.show()

refits = [
    ps.predict_log_proba(
        ps.fit_map(replace(train, weights=1 - row), chosen).params, train.features[i : i + 1]
    )[0, train.labels[i]]
    for i, row in enumerate(jnp.eye(60))
]
short = ps.leave_one_out(refit.params, train, chosen)[rows, train.labels].sum()
print(f"leave-one-out at τ = {tau:.3f}: {short:.2f} nats; by 60 refits {np.sum(refits):.2f}")

assert refit.status == ps.Status.CONVERGED
assert highest >= curves[0].max()
np.testing.assert_allclose(short, np.sum(refits), rtol=0.05)

# %% [markdown]
# The two criteria that see only the 60 points are closer to each other than to the truth: these points happen to be
# easier to part than the next 4000. But one sample is an anecdote. Twenty of them, and what each way of choosing loses
# on unseen points against the best precision of the sweep:

# %%
lost = []
for seed in range(20):
    evidence, left_out, unseen = judged(clouds(np.random.default_rng(100 + seed), 60))
    picks = [evidence.argmax(), left_out.argmax(), 0]
    lost.append(unseen.max() - unseen[picks])
for name, losses in zip(
    ("evidence", "leave-one-out", "always τ = 0.01"), np.transpose(lost), strict=True
):
    error = losses.std(ddof=1) / np.sqrt(20)
    print(f"{name:16} loses {losses.mean():5.2f} ± {error:.2f} nats for 60 points")

# %% [markdown]
# ## What a statistician asks
#
# Without a prior the same curvature gives standard errors, tests and intervals. Only differences between classes
# can be estimated, so the table holds every class against class 0.

# %%
names = ["feature 1", "feature 2"]
mle = ps.fit_mle(train)
table = ps.summarize(mle.params, train, feature_names=names)
print(table)

assert mle.status == ps.Status.CONVERGED

# %% [markdown]
# Does feature 2 matter at all? Wald's z asks it of each coefficient; the likelihood ratio asks it once, by a fit
# without the feature. (A column of zeros says nothing, so that fit is of the same shape.)

# %%
zeroed = replace(train, features=train.features.at[:, 1].set(0.0))
params = ps.fit_mle(zeroed).params
restricted = ps.summarize(
    ps.Params(params.weights[:1], params.bias),
    replace(train, features=train.features[:, :1]),
    feature_names=names[:1],
)
ratio = ps.likelihood_ratio_test(table, restricted)
print(f"chi²({ratio.degrees_of_freedom}) = {ratio.statistic:.2f}, p = {ratio.p_value:.1e}")

assert ratio.degrees_of_freedom == 2
assert ratio.p_value < 1e-6

# %% [markdown]
# A fit with a prior is summarised by its posterior, and has no p-values: it says why.

# %%
by_posterior = ps.summarize(fit.params, train, prior=prior, feature_names=names)
print(by_posterior.to_pandas().round(2).to_string())
try:
    print(by_posterior.p_values)
except ValueError as error:
    print("\nValueError:", error)
else:
    raise AssertionError("a MAP must not have p-values")

# %% [markdown]
# ## Separation, caught
#
# Pull the clouds together. Where straight lines can part a class from the others, some coefficients have no finite
# estimate: along a direction the likelihood rises for ever, towards a supremum that it never reaches. A table of
# standard errors would be nonsense. `fit_mle` says `SEPARATED`; `separation` names the direction, the
# classes and features that run away, and the supremum, by a linear program.

# %%
partly = clouds(np.random.default_rng(3), 60, spread=0.7)
runaway = ps.fit_mle(partly)
found = ps.separation(partly)
print("fit_mle:   ", ps.Status(int(runaway.status)).name)
print("separation:", found.kind, " proven:", found.proven)
print("classes that run away:", np.flatnonzero(found.classes), " features:", found.features)
print("rows whose label is left alone:", found.rows.sum(), "of 60")


def beyond(length):
    """How far below the supremum, that far along the direction from where fit_mle stopped."""
    at = jax.tree.map(lambda w, along: w + length * along, runaway.params, found.direction)
    return found.supremum - float(ps.log_likelihood(at, partly))


print(f"\nsupremum of the log-likelihood: {found.supremum:.9f}")
print(f"fit_mle stopped at:             {-runaway.objective:.9f}")
for length in (0, 1, 3, 10):
    print(f"  {length:3} directions farther: {beyond(length):.1e} nats below the supremum")

assert runaway.status == ps.Status.SEPARATED
assert found.kind == "quasi"
assert found.proven
assert beyond(0) > beyond(1) > beyond(3) > beyond(10) > 0

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(1, 1.15))
edge = np.linspace(-4, 4, 2)
(a, c), b = (w[..., 1] - w[..., 0] for w in found.direction)  # classes 0 and 2 move alike
left.plot(edge, -(a * edge + b) / c, color="black", linewidth=1.6)
points(left, partly)
alone = np.asarray(partly.features)[found.rows]
left.scatter(*alone.T, s=110, facecolor="none", edgecolor="black", linewidth=0.8)
frame(left, 4, "Class 1 can be parted from the others")
left.set(ylabel="feature 2")
left.legend(loc="upper left", fontsize=8)
left.text(3.8, -3.7, "circled: separated from all others", fontsize=8, ha="right")
far = np.linspace(0, 12, 40)
right.plot(far, [beyond(length) for length in far], color=COLOURS[0], linewidth=2)
right.set(yscale="log", xlabel="times the direction, from where fit_mle stopped")
right.set(ylabel="nats below the supremum", title="Ever closer, never there")
plt.show()

# %% [markdown]
# ## Do the probabilities mean what they say?
#
# Of the points called 80 % sure, are four in five right? A reliability curve answers it bin by bin. The maximum
# likelihood fit to 60 points is too sure. Two remedies: one number, the temperature, that divides all its
# scores and is fitted to held-out points (half of the 4000; the other half judges); or a prior, and the average over
# the posterior, which needs no held-out points.

# %%
fitting, judging = slice(0, 2000), slice(2000, 4000)
eta = ps.logits(mle.params, test.features)
scaling = ps.fit_temperature(eta[fitting], test.labels[fitting])
print(
    f"temperature {scaling.temperature:.2f}: {ps.Status(int(scaling.status)).name}, "
    f"at most {scaling.gap:.0e} nats above the best"
)

remedies = {
    "maximum likelihood": ps.softmax(eta[judging]),
    "with a temperature": ps.softmax(eta[judging] * scaling.inverse_temperature),
    "averaged posterior": ps.predictive_probit(at_mean, test.features)[judging],
}
labels = test.labels[judging]
curve_of = jax.jit(partial(ps.reliability_curve, num_bins=10))
reliability = {name: curve_of(p, labels) for name, p in remedies.items()}

fig, axes = plt.subplots(1, 3, figsize=(11, 4), sharey=True)
for ax, (name, curve), colour in zip(
    axes, reliability.items(), (COLOURS[1], COLOURS[0], COLOURS[2]), strict=True
):
    plots.reliability(curve, color=colour, ax=ax)
    ax.set(title=name)
for ax in axes[1:]:
    ax.set(ylabel="")
plt.show()

print(f"{'':20}{'log loss':>10}{'calibration error':>20}{'Brier score':>14}{'accuracy':>11}")
losses = {}
for name, p in remedies.items():
    losses[name] = float(-jnp.log(p[jnp.arange(2000), labels]).mean())
    error = ps.expected_calibration_error(p, labels, num_bins=10)
    right = float((p.argmax(axis=1) == labels).mean())
    print(
        f"{name:20}{losses[name]:10.3f}{error:20.3f}{ps.brier_score(p, labels):14.3f}{right:11.3f}"
    )

assert scaling.status == ps.Status.CONVERGED
assert losses["with a temperature"] < losses["maximum likelihood"]
assert losses["averaged posterior"] < losses["maximum likelihood"]

# %% [markdown]
# The temperature changes no prediction, hence the equal accuracy.
#
# ## What to take home
#
# - A fit is the centre of a cloud. `laplace` is the cloud; `sample` draws from it.
# - Far from the data the plug-in is sure of everything and the average is not. Believe the average.
# - `log_joint` is the whole model. Any sampler takes it, and can be the judge of every shortcut.
# - The evidence chooses a prior from the training points alone, and `fit_evidence` climbs it.
# - `summarize` prints the table people know, and refuses to print what means nothing.
# - Where classes separate there is no estimate. `SEPARATED` says so, `separation` says where and why.
# - Calibration is measured on points that the fit has not seen.
