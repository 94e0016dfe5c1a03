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
# # From scores to probabilities
#
# A linear classifier ends in a row of scores, one a class. This notebook turns them into a probability model
# and looks at every step by number: what a score means, where naive code breaks, how the cross-entropy
# differs from a hinge, and which function is meant for which situation.
#
# It follows the path, and borrows some of the numbers, of a course note that many people have learned this
# from: [CS231n, *Linear classification*](https://cs231n.github.io/linear-classify/).
#
# To run it: `pip install "probsoftmax[plots]"`. Everything is computed in float32, as JAX starts. In float64
# the same cliffs stand a little farther out.

# %%
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import probsoftmax as ps

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # safe for colour-blind eyes
plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "figure.dpi": 80,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "legend.frameon": False,
    }
)
cross_entropy_of = jax.jit(ps.softmax_cross_entropy_with_integer_labels)  # used all the time

# %% [markdown]
# ## Scores are unnormalised log-probabilities
#
# An image of four pixels, three classes (cat, dog, ship), a linear map. The scores $\eta = xW + b$ can be any
# numbers.

# %%
params = ps.Params(
    weights=jnp.array(
        [[0.01, 0.7, 0.0], [-0.05, 0.2, -0.45], [0.1, 0.05, -0.2], [0.05, 0.16, 0.03]]
    ),
    bias=jnp.array([0.0, 0.2, -0.3]),
)
image = jnp.array([-15.0, 22.0, -44.0, 56.0])
ship = jnp.array(2)

scores = ps.logits(params, image)
print("scores", scores)
assert np.allclose(scores, jnp.array([-2.85, 0.86, 0.28]), atol=1e-5)

# %% [markdown]
# Read each score as a log-probability that has not been normalised yet. Exponentiate, divide by the sum: that
# is the softmax, and it is all there is to it. What normalising takes away is one number, the same for every
# class.

# %%
p = ps.softmax(scores)
log_p = ps.log_softmax(scores)
print("probabilities    ", p, "sum", p.sum())
print("log-probabilities", log_p)
print("score - log p    ", scores - log_p, "= logsumexp", ps.logsumexp(scores))

assert np.allclose(scores - log_p, ps.logsumexp(scores), atol=1e-6)

# %% [markdown]
# The loss of an example is the negative log-probability of its label, in nats. (In base 10 it would read
# 0.452.)

# %%
loss = cross_entropy_of(scores, ship)
print(f"-log p(ship) = {loss:.4f} nats = {loss / math.log(10):.3f} in base 10")

assert np.allclose(loss, -log_p[ship])
assert round(float(loss), 2) == 1.04

# %% [markdown]
# Over a data set the losses add up, and the sum is minus the log of a product: the probability that the model
# gives to all labels at once, its *likelihood*. Minimising the summed cross-entropy is maximum likelihood.

# %%
images = jnp.stack([image, image / 10, -image])
data = ps.make_data(images, np.array([2, 1, 0]))
likelihood = math.prod(ps.predict_proba(params, images)[np.arange(3), data.labels])
nll = ps.negative_log_likelihood(params, data)
print(f"product of probabilities {likelihood:.6f}, exp(-summed loss) {jnp.exp(-nll):.6f}")

assert np.allclose(jnp.exp(-nll), likelihood, rtol=1e-5)

# %% [markdown]
# Since a constant drops out, only *differences* of scores mean anything:
# $\log (p_i / p_j) = \eta_i - \eta_j$. Adding 100 to every score changes no probability (beyond the rounding
# of the addition itself).

# %%
print("log odds dog : ship   ", log_p[1] - log_p[2], " difference of scores", scores[1] - scores[2])
print("all scores 100 higher ", ps.softmax(scores + 100))

assert np.allclose(log_p[1] - log_p[2], scores[1] - scores[2], atol=1e-6)
assert np.allclose(ps.softmax(scores + 100), p, atol=1e-5)

# %% [markdown]
# ## The shift
#
# The same freedom rescues the computer. Take three scores that are not even unusual, and write down the
# definition:

# %%
large = jnp.array([123.0, 456.0, 789.0])


def softmax_as_defined(scores):
    """Correct on paper."""
    exponentials = jnp.exp(scores)
    return exponentials / exponentials.sum()


print("exp(scores)", jnp.exp(large), " largest float32", jnp.finfo(jnp.float32).max)
print("softmax    ", softmax_as_defined(large))
with jax.enable_x64(True):
    print("in float64 ", softmax_as_defined(jnp.array([123.0, 456.0, 789.0])))

assert jnp.isnan(softmax_as_defined(large)).all()

# %% [markdown]
# Subtract the largest score first. The largest exponential is then exactly 1, nothing can overflow, and what
# underflows was too small to matter for the *sum*.

# %%
print("shifted       ", softmax_as_defined(large - large.max()))
print("ps.softmax    ", ps.softmax(large))
print("ps.log_softmax", ps.log_softmax(large))

assert np.array_equal(ps.softmax(large), jnp.array([0.0, 0.0, 1.0]))
assert np.array_equal(ps.log_softmax(large), jnp.array([-666.0, -333.0, 0.0]))

# %% [markdown]
# Note what the last line knows and the line above it does not: $e^{-666} \approx 10^{-289}$ is far below the
# smallest float32, but its logarithm is an ordinary number. So stay in log-probabilities;
# `ps.predict_log_proba` never takes the logarithm of a softmax.

# %% [markdown]
# ## Cross-entropy = entropy + divergence
#
# Let $p$ be the truth and $q$ what a model says. The cross-entropy $H(p, q) = -\sum_j p_j \log q_j$ splits
# into something the model cannot change, the entropy $H(p)$, and something that is 0 only where it is right,
# the Kullback-Leibler divergence.

# %%
truth = jnp.array([0.8, 0.15, 0.05])
model = jnp.array([0.5, 0.2, 0.3])
h, kl, ce = ps.entropy(truth), ps.kl_divergence(truth, model), ps.cross_entropy(truth, model)
print(f"H(p) {h:.6f} + KL(p|q) {kl:.6f} = {h + kl:.6f}, and H(p, q) = {ce:.6f}")

assert np.allclose(h + kl, ce, rtol=1e-6)

# %% [markdown]
# A family of models that contains the truth: $q \propto p^s$, uniform at $s = 0$, the truth at $s = 1$,
# overconfident beyond. The lowest point of the cross-entropy is the truth, and it is not 0.

# %%
sharpness = np.linspace(0, 3, 301)
models = jax.jit(ps.softmax)(sharpness[:, None] * np.log(truth))
curve = np.asarray(ps.cross_entropy(truth, models))

fig, ax = plt.subplots(figsize=(6.5, 3))
ax.fill_between(sharpness, 0, h, color=BLUE, alpha=0.25, linewidth=0)
ax.fill_between(sharpness, h, curve, color=ORANGE, alpha=0.35, linewidth=0)
ax.plot(sharpness, curve, color="black")
h = float(h)
ax.plot(1, h, "o", color="black")
ax.text(1, h + 0.06, "q = p", ha="center")
ax.text(1.5, h / 2, "entropy H(p): stays", ha="center", va="center")
ax.text(2.97, h + 0.05, "divergence KL(p∣q): can go", ha="right", va="center")
ax.set(xlabel="sharpness s of the model q ∝ pˢ", ylabel="nats", xlim=(0, 3), ylim=(0, 1.2))
ax.set_title("Cross-entropy H(p, q), the black line, and its two parts", loc="left")
plt.show()

assert sharpness[curve.argmin()] == 1
assert np.allclose(curve.min(), h)

# %% [markdown]
# A label that is certain is a one-hot $p$. Its entropy is 0, so cross-entropy, divergence and $-\log q_y$ are
# one and the same number: three names for one loss.

# %%
one_hot = jax.nn.one_hot(0, 3)
names = {
    "cross-entropy": ps.cross_entropy(one_hot, model),
    "KL divergence": ps.kl_divergence(one_hot, model),
    "-log q_y": -jnp.log(model[0]),
}
for name, value in names.items():
    print(f"{name:14} {value:.6f}")

assert ps.entropy(one_hot) == 0
assert len({float(value) for value in names.values()}) == 1

# %% [markdown]
# ## Softmax and hinge, on the same scores
#
# The support vector machine reads the same scores as mere preferences: the label's should lead by a margin
# $\Delta = 1$. Two multiclass forms are in use. Weston-Watkins *sums* the violations over the other classes
# (the course note's), Crammer-Singer takes the *worst* one.

# %%
table = [
    ("the ship image", scores, 2),
    ("both too close", jnp.array([1.0, 2.0, 3.0]), 0),
    ("margin just met", jnp.array([10.0, 9.0, 9.0]), 0),
    ("clear", jnp.array([10.0, -2.0, 3.0]), 0),
    ("clearer still", jnp.array([10.0, -10.0, -10.0]), 0),
]
print(f"{'':16}{'scores':>22}{'label':>7}{'sum hinge':>11}{'max hinge':>11}{'cross-entropy':>15}")
for name, row, label in table:
    y = jnp.array(label)
    losses = [
        f(row, y) for f in (ps.weston_watkins_hinge, ps.crammer_singer_hinge, cross_entropy_of)
    ]
    shown = np.array2string(np.asarray(row), precision=2)
    print(f"{name:16}{shown:>22}{label:7}{losses[0]:11.4f}{losses[1]:11.4f}{losses[2]:15.4g}")

assert np.allclose(ps.weston_watkins_hinge(scores, ship), 1.58, atol=1e-5)
assert [float(ps.weston_watkins_hinge(row, jnp.array(0))) for _, row, _ in table[1:]] == [
    5,
    0,
    0,
    0,
]
assert [float(ps.crammer_singer_hinge(row, jnp.array(0))) for _, row, _ in table[1:]] == [
    3,
    0,
    0,
    0,
]

# %% [markdown]
# Who stops caring? Let the label's score $t$ climb while two others stay at 0. Past the margin both hinges
# are flat: such an example pulls on nothing any more. The cross-entropy keeps pulling, ever more gently, as
# $e^{-t}$, and never stops. That is why it has no finite optimum on separable data (the next notebook), and
# why its scores end up meaning something: the odds.

# %%
t = np.linspace(-3, 12, 601)
rows = np.stack([t, 0 * t, 0 * t], axis=1)
label = jnp.array(0)
curves = [
    ("cross-entropy", cross_entropy_of, BLUE, "-"),
    ("Weston-Watkins (sum)", ps.weston_watkins_hinge, ORANGE, "--"),
    ("Crammer-Singer (max)", ps.crammer_singer_hinge, GREEN, "-."),
]
pull = {}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for name, f, colour, dashes in curves:
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(f), in_axes=(0, None)))(rows, label)
    pull[name] = -gradient[:, 0]
    left.plot(t, value, dashes, color=colour, label=name)
    right.plot(t, jnp.where(pull[name] > 0, pull[name], jnp.nan), dashes, color=colour)
left.axvline(1, color="grey", linewidth=0.8)
left.set(
    xlim=(-3, 4),
    xlabel="lead t of the label's score",
    ylabel="loss",
    title="Loss of the scores [t, 0, 0]",
)
left.legend()
right.axvline(1, color="grey", linewidth=0.8)
right.text(1.2, 2e-5, "margin met:\nthe hinges stop here", va="center")
right.set(yscale="log", ylim=(4e-6, 5), xlim=(-3, 12), xlabel="lead t of the label's score")
right.set(ylabel="pull on the label's score", title="Minus the slope, on a log scale")
plt.show()

assert (pull["Weston-Watkins (sum)"][t > 1.01] == 0).all()
assert (pull["Crammer-Singer (max)"][t > 1.01] == 0).all()
assert (pull["cross-entropy"] > 0).all()

# %% [markdown]
# ## The size of the scores is a statement
#
# Multiply all scores by one number: the ranking stays, the probabilities do not. Small scores are a shrug,
# large ones a certainty. Halving $[1, -2, 0]$ makes the distribution flatter, and in the limits it becomes
# uniform or all on one class.

# %%
base = jnp.array([1.0, -2.0, 0.0])
print("scores       ", base, "->", ps.softmax(base))
print("half of them ", base / 2, "->", ps.softmax(base / 2))

scales = np.geomspace(0.03, 30, 200)
spectrum = jax.jit(ps.softmax)(scales[:, None] * base)
fig, ax = plt.subplots(figsize=(6.5, 3))
for j, (colour, dashes) in enumerate([(BLUE, "-"), (ORANGE, "--"), (GREEN, "-.")]):
    ax.plot(scales, spectrum[:, j], dashes, color=colour, label=f"score {base[j]:g} × c")
for c, name in ((0.5, "half "), (1, " as is")):
    ax.axvline(c, color="grey", linewidth=0.8)
    ax.text(c, 0.97, name, ha="right" if c < 1 else "left", va="top")
ax.set(xscale="log", xlabel="factor c on the scores", ylabel="probability", ylim=(0, 1.02))
ax.set_title("The same ranking, from a shrug to a certainty", loc="left")
ax.legend(loc="center right")
plt.show()

assert np.allclose(ps.softmax(base), jnp.array([0.705, 0.035, 0.259]), atol=1e-3)
assert np.allclose(ps.softmax(base / 2), jnp.array([0.547, 0.122, 0.331]), atol=1e-3)
assert np.allclose(spectrum[0], 1 / 3, atol=0.03)
assert spectrum[-1, 0] == 1

# %% [markdown]
# The factor is what a regulariser decides: a stronger penalty on $W$ means smaller scores and flatter
# probabilities, so probabilities are only as good as the penalty behind them (again the next notebook).
#
# A hinge has no such scale of its own. Scores and margin may be stretched together without any change, so its
# $\Delta$ is a choice of units, and no second knob beside the penalty.

# %%
three = jnp.array([1.0, 2.0, 3.0])
for c in (0.5, 1.0, 10.0):
    stretched = ps.weston_watkins_hinge(c * three, label, margin=c)
    print(f"scores x {c:4}, margin {c:4}: hinge {stretched:6.2f} = {c} x 5")
    assert stretched == c * 5

# %% [markdown]
# ## Why 'softmax loss' is a misnomer
#
# Softmax is a function from scores to probabilities: three numbers in, three numbers out. It is no loss. The
# loss is the cross-entropy *of* its output, and the loose name has a history: Caffe had a layer `Softmax`, to
# be followed by `MultinomialLogisticLoss`, and another, `SoftmaxWithLoss`, that fused the two. On paper they
# are the same function. Here they are, forward and backward, as their authors wrote them, floors under the
# logarithm included.

# %%
tiny = jnp.finfo(jnp.float32).tiny  # C's FLT_MIN


def softmax_layer(scores):
    """The shift is in place: this layer is not the problem."""
    e = jnp.exp(scores - scores.max())
    return e / e.sum()


def two_layers(scores, y):
    """Softmax, then MultinomialLogisticLoss; the chain rule, layer by layer."""
    p = softmax_layer(scores)
    p_y = jnp.maximum(p[y], 1e-20)
    from_loss = jax.nn.one_hot(y, p.size) * -1 / p_y
    return -jnp.log(p_y), p * (from_loss - from_loss @ p)


def fused_layer(scores, y):
    """SoftmaxWithLoss: the chain rule worked out by hand, p - y."""
    p = softmax_layer(scores)
    return -jnp.log(jnp.maximum(p[y], tiny)), p - jax.nn.one_hot(y, p.size)


def logsumexp_form(scores, y):
    """The form most libraries use today, with automatic differentiation."""

    def f(scores):
        top = scores.max()
        return top + jnp.log(jnp.exp(scores - top).sum()) - scores[y]

    return jax.value_and_grad(f)(scores)


def log_of_softmax(scores, y):
    """What one writes without thinking, with automatic differentiation."""
    return jax.value_and_grad(lambda scores: -jnp.log(softmax_layer(scores)[y]))(scores)


def ours(scores, y):
    """The loss of this library."""
    return jax.value_and_grad(cross_entropy_of)(scores, jnp.asarray(y))


def exact(t, y):
    """Loss and label's gradient for the scores [t, 0], from formulas without cancellation, in float64."""
    t = np.asarray(t, np.float64)
    rest = np.exp(-t)
    loss = np.log1p(rest) + (t if y == 1 else 0)
    return loss, -(1 if y == 1 else rest) / (1 + rest)


ways = {
    "log of softmax": log_of_softmax,
    "two layers": two_layers,
    "fused layer": fused_layer,
    "logsumexp": logsumexp_form,
    "probsoftmax": ours,
}

# %% [markdown]
# Every way gets the scores $[t, 0]$ for leads $t$ from ½ to 500, with either class as the label. With modest
# scores all five say the same, to a few digits.

# %%
leads = np.arange(0.5, 500.5, 0.5, dtype=np.float32)
rows = np.stack([leads, 0 * leads], axis=1)
results = {}  # (way, label) -> losses and gradients at every lead
for way, f in ways.items():
    over_rows = jax.jit(jax.vmap(f, in_axes=(0, None)))
    for y in (0, 1):
        losses, gradients = over_rows(rows, y)
        results[way, y] = np.asarray(losses), np.asarray(gradients)


def at(t):
    """The place of a lead in the arrays."""
    return int(2 * t) - 1


for way in ways:
    loss, gradient = (x[at(2)] for x in results[way, 0])
    print(f"{way:15} loss {loss:.7f}   gradient {gradient}")
    np.testing.assert_allclose([loss, gradient[0]], exact(2, 0), rtol=1e-5)

# %% [markdown]
# **A confident mistake.** The label is the second class, and the model is sure of the first. The loss should
# be about $t$, the pull on the label full, $-1$. Without a floor the probability underflows and the gradient
# is NaN: one such example poisons the whole model. With Caffe's floor the two layers give next to *no
# gradient* to the example that needs it most. The fused layer gets the gradient right, and that was the
# reason to build it; its value still hits a floor.


# %%
def show(y, chosen):
    """Loss and label's gradient of every way of computing them."""
    for part, title in enumerate(("loss", "gradient of the label's score")):
        if part == 1:
            print()
        columns = [results[way, y][part] for way in ways]
        columns = [column if part == 0 else column[:, y] for column in columns]
        print(f"{title}\n{'t':>5}" + "".join(f"{way:>16}" for way in ways) + f"{'exact':>16}")
        for t in chosen:
            numbers = [column[at(t)] for column in columns] + [exact(t, y)[part]]
            print(f"{t:5g}" + "".join(f"{float(x) + 0:16.7g}" for x in numbers))


show(1, [5, 20, 50, 110, 500])

assert np.isnan(results["log of softmax", 1][1][at(110)]).all()
assert (results["two layers", 1][1][at(110)] == 0).all()
assert results["fused layer", 1][1][at(500), 1] == -1
assert results["probsoftmax", 1][0][at(500)] == 500

# %% [markdown]
# **A confident success.** The label is the first class. Now the fused forms run dry as well: $p_y$ rounds to
# 1, its logarithm to 0, and so does $p_y - 1$. From $t = 17$ on a well-classified example looks perfect. (The
# bare logarithm of a softmax loses its value just so, and keeps its gradient only by the order in which the
# chain rule happens to be multiplied out.)

# %%
show(0, [5, 10, 15, 17, 40, 80])

assert results["logsumexp", 0][0][at(17)] == 0
assert results["fused layer", 0][1][at(17), 0] == 0

# %% [markdown]
# The gradient of the *other* class is still there, though, so the two no longer cancel as they must, and an
# optimiser that should polish the last digits sees noise. `probsoftmax` keeps $1 - p_y$ as a number of its
# own, the sum of the others, and is right to the last digit for as long as float32 can hold the answer, up to
# $t = 87$.

# %%
print("gradient at t = 17: fused layer", results["fused layer", 0][1][at(17)])
print("                    probsoftmax", results["probsoftmax", 0][1][at(17)])

eps = float(np.finfo(np.float32).eps)
held = slice(0, at(87) + 1)
losses, gradients = (x[held] for x in results["probsoftmax", 0])
loss_error, gradient_error = (
    np.max(np.abs(found / true - 1)) / eps
    for found, true in zip((losses, gradients[:, 0]), exact(leads[held], 0), strict=True)
)
print(
    f"largest relative error up to t = 87: loss {loss_error:.2f} eps, gradient {gradient_error:.2f} eps"
)

assert loss_error < 2
assert gradient_error < 2
np.testing.assert_allclose(-gradients[:, 0], gradients[:, 1], rtol=2 * eps)

# %%
styles = {
    "two layers": (GREEN, "-."),
    "fused layer": (ORANGE, "--"),
    "logsumexp": (PINK, ":"),
    "probsoftmax": (BLUE, "-"),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for part, (ax, title) in enumerate(
    zip(axes, ("loss", "gradient of the label's score"), strict=True)
):
    for way, (colour, dashes) in styles.items():
        found = results[way, 0][part] if part == 0 else results[way, 0][part][:, 0]
        error = np.abs(found / exact(leads, 0)[part] - 1)[held]
        ax.plot(leads[held], np.maximum(error, 1e-9), dashes, color=colour, label=way)
    ax.axhline(eps, color="grey", linewidth=0.8)
    ax.set(xlim=(0, 87), yscale="log", ylim=(5e-10, 5))
    ax.set(xlabel="lead t of the label's score", title=title)
axes[0].set(ylabel="relative error")
axes[0].text(86, 0.5, "nothing is left of the number", ha="right", va="top", color="0.35")
axes[0].text(86, eps * 1.5, "one unit in the last digit", ha="right", va="bottom", color="0.35")
axes[1].legend(loc="center right")
plt.show()

# %% [markdown]
# ## When the probabilities come from elsewhere
#
# Sometimes there are no scores: a forest, a forecaster, an average over several models hands over
# probabilities, and only their likelihood is wanted. This is the one honest use of a logarithm of
# probabilities, and of the unfused layer. `ps.cross_entropy` of the one-hot labels and the given rows is
# minus the log-likelihood, row by row.

# %%
forecasts = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
outcomes = jnp.array([0, 1, 0])
losses = ps.cross_entropy(jax.nn.one_hot(outcomes, 3), forecasts)
print("losses", losses, " log-likelihood", -losses.sum())
print("as product of probabilities:", jnp.exp(-losses.sum()), "= 0.7 x 0.8 x 0.3")

assert np.allclose(jnp.exp(-losses.sum()), 0.7 * 0.8 * 0.3)

# %% [markdown]
# Averaging probabilities is a case where it must be done this way: a mixture of two models has no scores
# until it has probabilities. (By concavity of the logarithm it is never worse than the models' mean loss.)

# %%
second = jnp.array([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1]])
targets = jax.nn.one_hot(outcomes, 3)
each = [ps.cross_entropy(targets, q).sum() for q in (forecasts, second)]
mixture = ps.cross_entropy(targets, (forecasts + second) / 2).sum()
print(f"first {each[0]:.4f}, second {each[1]:.4f}, their mixture {mixture:.4f} nats")

assert mixture <= sum(each) / 2

# %% [markdown]
# Logarithms of probabilities are scores too, ones that happen to be normalised already, so the fused loss
# agrees. And a forecaster who called the outcome impossible pays the price: $+\infty$, no floor.

# %%
from_logs = cross_entropy_of(jnp.log(forecasts), outcomes)
certain = ps.cross_entropy(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
print("from log-probabilities as scores", from_logs)
print("the impossible happened         ", certain)

assert np.allclose(from_logs, losses, rtol=1e-5)
assert certain == jnp.inf

# %% [markdown]
# ## One neuron: two classes
#
# A single neuron with many inputs and a sigmoid is the case $k = 2$: its score is the *difference* of the two
# classes' scores, so one of them may as well be 0. The weights may be given to one class, or shared out in
# halves; only the difference counts.

# %%
inputs = jax.random.normal(jax.random.key(0), (5, 8))
w, b = jnp.linspace(-1, 1, 8), 0.3
neuron = inputs @ w + b
fires = jax.nn.sigmoid(neuron)
one_sided = ps.Params(jnp.stack([0 * w, w], axis=1), jnp.array([0.0, b]))
shared = ps.Params(jnp.stack([-w / 2, w / 2], axis=1), jnp.array([-b / 2, b / 2]))
print("sigmoid of the neuron     ", fires)
print("softmax, weights (0, w)   ", ps.predict_proba(one_sided, inputs)[:, 1])
print("softmax, weights (-w, w)/2", ps.predict_proba(shared, inputs)[:, 1])

assert np.allclose(ps.predict_proba(one_sided, inputs)[:, 1], fires, rtol=1e-5)
assert np.allclose(ps.predict_proba(shared, inputs)[:, 1], fires, rtol=1e-5)

# %% [markdown]
# Their losses are the same function, and so are the gradients: probability minus label.

# %%
y = jnp.array([1, 0, 1, 1, 0])
binary = ps.sigmoid_binary_cross_entropy(neuron, y)
softmax_of_two = cross_entropy_of(jnp.stack([jnp.zeros(5), neuron], axis=1), y)
slope = jax.jit(jax.grad(lambda s: ps.sigmoid_binary_cross_entropy(s, y).sum()))(neuron)
print("binary cross-entropy", binary)
print("softmax of [0, s]   ", softmax_of_two)
print("gradient            ", slope)
print("probability - label ", fires - y)

assert np.allclose(binary, softmax_of_two, rtol=1e-6)
assert np.allclose(slope, fires - y, rtol=1e-5)

# %% [markdown]
# Several such neurons side by side are *not* a softmax. They answer separate yes-no questions, and their
# probabilities need not sum to 1. A softmax chooses exactly one.

# %%
print("three neurons:", jax.nn.sigmoid(scores), " sum", jax.nn.sigmoid(scores).sum())
print("softmax:      ", ps.softmax(scores), " sum", ps.softmax(scores).sum())

assert np.allclose(ps.softmax(scores).sum(), 1)
assert not np.allclose(jax.nn.sigmoid(scores).sum(), 1, atol=0.1)

# %% [markdown]
# ## Labels that are probabilities
#
# Ten people label an image: seven say cat, two dog, one ship. The row of shares is a label; its loss is the
# mean of the ten single losses, and its gradient is still probability minus label.

# %%
shares = jnp.array([0.7, 0.2, 0.1])
votes = jnp.repeat(jnp.arange(3), jnp.array([7, 2, 1]))
soft = ps.softmax_cross_entropy(scores, shares)
mean = cross_entropy_of(jnp.tile(scores, (10, 1)), votes).mean()
gradient = jax.jit(jax.grad(ps.softmax_cross_entropy))(scores, shares)
print(f"loss of the shares {soft:.6f}, mean loss of the votes {mean:.6f}")
print("gradient", gradient, " p - y", ps.softmax(scores) - shares)

assert np.allclose(soft, mean, rtol=1e-5)
assert np.allclose(gradient, ps.softmax(scores) - shares, atol=1e-6)

# %% [markdown]
# For a data set it is the same to give the row once with its shares and weight 10, or three times with a
# class and its count.

# %%
once = ps.make_data(image[None], shares[None], weights=[10.0])
counted = ps.make_data(jnp.tile(image, (3, 1)), np.arange(3), weights=[7.0, 2.0, 1.0])
nlls = [ps.negative_log_likelihood(params, d) for d in (once, counted)]
print(f"shares with weight 10: {nlls[0]:.5f}, classes with counts: {nlls[1]:.5f} nats")

assert np.allclose(*nlls, rtol=1e-6)

# %% [markdown]
# The best possible loss is then not 0 but the entropy of the label: even a perfect model cannot know which of
# the ten it will hear. Rows that do not sum to 1 would silently be weights; `ps.make_data` refuses them by
# name.

# %%
perfect = ps.softmax_cross_entropy(jnp.log(shares), shares)
print(f"loss of a perfect model {perfect:.6f}, entropy of the label {ps.entropy(shares):.6f}")
assert np.allclose(perfect, ps.entropy(shares))

try:
    ps.make_data(image[None], np.array([[0.7, 0.2, 0.2]]))
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("a row that sums to 1.1 was accepted")

# %% [markdown]
# ## Impossible classes
#
# An illegal move, a word outside the grammar: a score of $-\infty$ rules a class out. It gets probability 0
# and gradient 0, and the rest share the whole. The formula written down as it stands stumbles over
# $0 \cdot \infty$ instead.

# %%
ruled_out = jnp.array([2.0, -jnp.inf, 1.0, 0.5])
target = jnp.array([0.9, 0.0, 0.1, 0.0])


def as_written(scores, target):
    """The sum over classes, taken literally."""
    return -jnp.sum(target * jnp.log(jax.nn.softmax(scores)))


value, gradient = jax.jit(jax.value_and_grad(ps.softmax_cross_entropy))(ruled_out, target)
print("probabilities       ", ps.softmax(ruled_out))
print("the others alone    ", ps.softmax(jnp.array([2.0, 1.0, 0.5])))
print("loss and gradient   ", value, gradient)
print("the same as written ", *jax.jit(jax.value_and_grad(as_written))(ruled_out, target))
print("if it happens anyhow", cross_entropy_of(ruled_out, jnp.array(1)))

assert jnp.isfinite(value)
assert gradient[1] == 0
assert jnp.isfinite(gradient).all()
assert jnp.isnan(as_written(ruled_out, target))
assert cross_entropy_of(ruled_out, jnp.array(1)) == jnp.inf

# %% [markdown]
# A mask does the same without touching the scores, whatever stands in the masked place.

# %%
legal = jnp.array([True, False, True, True])
print(ps.softmax(jnp.array([2.0, jnp.nan, 1.0, 0.5]), where=legal))

assert np.array_equal(
    ps.softmax(jnp.array([2.0, jnp.nan, 1.0, 0.5]), where=legal), ps.softmax(ruled_out)
)

# %% [markdown]
# ## Which function, when
#
# | you have | you want | take |
# |---|---|---|
# | scores, classes | loss, gradient | `softmax_cross_entropy_with_integer_labels` |
# | scores, rows of probabilities as labels | loss, gradient | `softmax_cross_entropy` |
# | scores of one neuron, yes or no | loss, gradient | `sigmoid_binary_cross_entropy` |
# | probabilities from elsewhere, labels | their likelihood | `cross_entropy(one_hot, q)` |
# | scores | log-probabilities, probabilities | `log_softmax`, `softmax` |
# | scores, classes, no wish for probabilities | margins | `weston_watkins_hinge`, `crammer_singer_hinge` |
# | parameters and a data set | log-likelihood | `log_likelihood`, `negative_log_likelihood` |
#
# The next notebook, `02_mle_and_map`, fits the model: what happens to $W$ under maximum likelihood, and what
# a prior does about it.
