r"""Figures of a fit: arrays in, matplotlib Axes (or a Figure of several) out.

Every function draws into the ``ax`` it is given, or into a figure of its own; ``ax.figure.savefig`` writes it.
Nothing here touches matplotlib's global state (no ``pyplot``, no ``rcParams``). Colours are those of Okabe and Ito,
which readers with colour-blindness tell apart, and no colour stands without a second sign: a marker, a line style, a
place.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from probsoftmax.calibration import ReliabilityCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))
GREY = "0.45"


def sweep(
    precisions: Float[ArrayLike, " l"],
    curves: Mapping[str, Float[ArrayLike, " l"]],
    *,
    label: str,
    at_zero: Mapping[str, float] | None = None,
    best: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """One number against the prior precision, on a logarithmic axis.

    Args:
        precisions: τ, > 0, ascending.
        curves: name of each curve and its values.
        label: of the vertical axis, with the unit.
        at_zero: the values at τ = 0, maximum likelihood, by the names of the curves; drawn apart, on the left.
        best: the precision that is to be marked.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    ax = _axes_or_new(ax, (6.4, 3.6))
    tau = np.asarray(precisions)
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(
            tau,
            np.asarray(values),
            color=COLOURS[i],
            linestyle=STYLES[i],
            marker=MARKERS[i],
            markersize=4,
            label=name,
        )
    ax.set_xscale("log")
    if best is not None:
        ax.axvline(best, color=GREY, linewidth=1)
        ax.annotate(
            f"best τ = {best:.3g}",
            (best, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -4),
            textcoords="offset points",
            va="top",
            color=GREY,
        )
    if at_zero is not None:
        _draw_zero(ax, tau, at_zero, list(curves))
    ax.set_xlabel("prior precision τ (per squared unit of coefficient)")
    ax.set_ylabel(label)
    ax.grid(visible=True, alpha=0.25)
    ax.legend(frameon=False)
    return ax


def _draw_zero(ax, tau, at_zero, names):
    """Zero is nowhere on a logarithmic axis: it gets a place of its own, left of a broken line."""
    width = max(np.log10(tau[-1] / tau[0]), 1)
    zero, border = tau[0] / 10 ** (0.12 * width), tau[0] / 10 ** (0.06 * width)
    for name, value in at_zero.items():
        i = names.index(name)
        ax.plot([zero], [value], color=COLOURS[i], marker=MARKERS[i], markersize=7, mfc="white")
    ax.axvline(border, color=GREY, linewidth=1, linestyle=(0, (2, 3)))
    decades = 10.0 ** np.arange(np.ceil(np.log10(tau[0]) - 1e-9), np.log10(tau[-1]) + 1e-9)
    ax.set_xticks([zero, *decades], ["0\n(MLE)", *(f"$10^{{{np.log10(t):.0f}}}$" for t in decades)])
    ax.set_xlim(zero / 10 ** (0.05 * width), tau[-1] * 10 ** (0.04 * width))


def weight_images(
    weights: Mapping[str, Float[ArrayLike, "d k"]],
    shape: tuple[int, int],
    class_names: Sequence[str],
    *,
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """The coefficients of every class as an image: what pulls towards the class, and what pushes away.

    One row of images a fit. All classes of a fit share one scale, symmetric about 0; each fit has its own, written on
    its colour bar, because a fit that ran away would leave the others blank.

    Args:
        weights: name of each fit and its W, whose d rows are the pixels in reading order.
        shape: rows and columns of pixels.
        class_names: k of them.
        figure: where to draw; a new figure if ``None``.

    Returns:
        The figure.
    """
    k = len(class_names)
    figure = _figure_or_new(figure, (0.95 * k + 1.2, 1.45 * len(weights) + 0.3))
    grid = figure.subplots(len(weights), k, squeeze=False)
    for row, (name, w) in zip(grid, weights.items(), strict=True):
        w = np.asarray(w)
        limit = np.abs(w).max() or 1
        for j, ax in enumerate(row):
            image = ax.imshow(w[:, j].reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_xticks([])
            ax.set_yticks([])
            if ax in grid[0]:
                ax.set_title(class_names[j])
        row[0].set_ylabel(name)
        figure.colorbar(image, ax=list(row), label="nats per unit", fraction=0.02, pad=0.01)
    return figure


def coefficients(
    weights: Float[ArrayLike, "d k"],
    feature_names: Sequence[str],
    class_names: Sequence[str],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """The coefficients as points, one line a feature and one marker a class.

    Two classes have opposite coefficients (where the fit is class-centred), so only the second is drawn then.

    Args:
        weights: W.
        feature_names: d of them, from top to bottom.
        class_names: k of them.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    w = np.asarray(weights)
    d, k = w.shape
    ax = _axes_or_new(ax, (4.8, 0.22 * d + 1.1))
    place = np.arange(d)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.hlines(place, w.min(axis=1), w.max(axis=1), color="0.85", linewidth=1) if k > 2 else None
    for j in range(1 if k == 2 else 0, k):
        ax.plot(
            w[:, j],
            place,
            linestyle="",
            color=COLOURS[j % len(COLOURS)],
            marker=MARKERS[j % len(MARKERS)],
            markersize=4.5,
            label=class_names[j],
        )
    ax.set_yticks(place, feature_names)
    ax.set_ylim(d - 0.5, -0.5)
    limit = 1.08 * (np.abs(w).max() or 1)
    ax.set_xlim(-limit, limit)
    ax.set_xlabel("coefficient (nats per unit of feature)")
    ax.grid(visible=True, axis="x", alpha=0.25)
    return ax


def reliability(
    curves: Mapping[str, ReliabilityCurve],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Reliability diagram: the share of right predictions against how sure they were; calibrated is the diagonal.

    Args:
        curves: name of each curve and the curve. Weights are read as numbers of rows: a bar is the 95 % Wilson
            interval of a share of so many, and an empty bin is left out.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    ax = _axes_or_new(ax, (4.4, 4.4))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    for i, (name, curve) in enumerate(curves.items()):
        confidence, accuracy, weight = (np.asarray(part)[np.asarray(curve.weight) > 0] for part in curve)
        low, high = _wilson(accuracy, weight)
        ax.errorbar(
            confidence,
            accuracy,
            (accuracy - low, high - accuracy),
            color=COLOURS[i],
            linestyle=STYLES[i],
            marker=MARKERS[i],
            markersize=5,
            elinewidth=1,
            linewidth=1.2,
            label=name,
        )
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.02)
    ax.set_aspect("equal")
    ax.set_xlabel("confidence: probability of the predicted class")
    ax.set_ylabel("accuracy: share of right predictions")
    ax.grid(visible=True, alpha=0.25)
    ax.legend(frameon=False, loc="upper left")
    return ax


def _wilson(share, n, z=1.96):
    """Ends of Wilson's score interval for a share of n."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding may put an end a last digit inside the share itself, where the share is 0 or 1.
    return np.minimum(centre - half, share), np.maximum(centre + half, share)


def _figure_or_new(figure, size):
    return _new_figure(size) if figure is None else figure


def _axes_or_new(ax, size):
    return _new_figure(size).subplots() if ax is None else ax


def _new_figure(size: tuple[float, float]) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = 'figures need matplotlib: pip install "probsoftmax[plots]"'
        raise ImportError(message) from error
    return Figure(figsize=size, layout="constrained")
