r"""Figures of a fit: arrays in, matplotlib Axes (or a Figure of several) out.

Every function draws into the axes it is given, or into a figure of its own; ``ax.figure.savefig`` writes it. Nothing
here touches matplotlib's global state (no ``pyplot``, no ``rcParams``). The colours are those of Okabe and Ito, which
readers with a colour-vision deficiency tell apart, and no colour stands without a second sign: a marker, a line style
or a place.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from probsoftmax.calibration import ReliabilityCurve
from probsoftmax.shapes import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (8, 3)), (0, (3, 4)), "-")
GREY = "0.45"


def sweep(
    precisions: Float[ArrayLike, " l"],
    curves: Mapping[str, Float[ArrayLike, " l"]],
    *,
    label: str,
    apart: Mapping[str, Mapping[str, float]] | None = None,
    best: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """One number against the prior precision, on a logarithmic axis.

    Args:
        precisions: τ, > 0, ascending.
        curves: the values of up to seven curves, by name.
        label: of the vertical axis, with its unit.
        apart: what is no point of the axis, 0 above all: the label of each place, and the values there by the names of
            the curves. The places are on the left, behind a dotted line.
        best: the precision that is to be marked.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    ax = new_figure(6.4, 3.8).subplots() if ax is None else ax
    tau = np.asarray(precisions)
    if best is not None:
        ax.axvline(best, color=GREY, linewidth=1.2, label=f"best, τ = {best:.3g}")
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(tau, np.asarray(values), label=name, markersize=4.5, **_look(i))
    ax.set_xscale("log")
    _draw_apart(ax, tau, apart or {}, list(curves))
    ax.set_xlabel("prior precision τ")
    ax.set_ylabel(label)
    ax.grid(visible=True, alpha=0.25)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return ax


def _draw_apart(ax, tau, apart, names):
    decades = max(np.log10(tau[-1] / tau[0]), 1)
    left, right = np.log10(tau[0]), np.log10(tau[-1])
    places = left - 0.12 * decades * np.arange(len(apart), 0, -1)
    for place, values in zip(places, apart.values(), strict=True):
        for name, value in values.items():
            i = names.index(name)
            ax.plot([10**place], [value], markersize=6.5, mfc="white", **_look(i))
    if apart:
        ax.axvline(10 ** (left - 0.06 * decades), color=GREY, linewidth=1, linestyle=(0, (2, 3)))
    ticks = dict(zip(10**places, apart, strict=True)) | _decades(left, right)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xticks([], minor=True)
    start = places[0] if apart else left
    ax.set_xlim(10 ** (start - 0.06 * decades), 10 ** (right + 0.04 * decades))


def _decades(left, right):
    """Powers of ten between two exponents, eight at most; the ends themselves where that would be one or none."""
    exponents = np.arange(np.ceil(left - 1e-9), right + 1e-9)
    if len(exponents) < 2:
        return {10**end: f"{10**end:.3g}" for end in (left, right)}
    return {10.0**e: f"$10^{{{e:.0f}}}$" for e in exponents[:: int(np.ceil(len(exponents) / 8))]}


def weight_images(
    weights: Mapping[str, Float[ArrayLike, "d k"]],
    shape: tuple[int, int],
    class_names: Sequence[str],
) -> "Figure":
    """The coefficients of every class as an image: what speaks for the class, and what against it.

    One row of images a fit. All classes of a fit share a scale, symmetric about 0; each fit has its own, because beside
    a fit that ran away the others would be blank. A scale ends at the 98th percentile of the sizes; what is beyond has
    the colour of its end.

    Args:
        weights: W of each fit by name; its d rows are the pixels in reading order.
        shape: rows and columns of pixels.
        class_names: k of them.

    Returns:
        A figure.
    """
    k = len(class_names)
    figure = new_figure(0.92 * k + 2.2, 1.0 * len(weights) + 0.25)
    figure.set_layout_engine("compressed")  # images are square: no space is left between them
    grid = figure.subplots(len(weights), k, squeeze=False)
    for j, name in enumerate(class_names):
        grid[0, j].set_title(name)
    for row, (name, w) in zip(grid, weights.items(), strict=True):
        w = np.asarray(w)
        limit = np.quantile(np.abs(w), 0.98) or np.abs(w).max() or 1
        for j, ax in enumerate(row):
            image = ax.imshow(w[:, j].reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        extend = "both" if np.abs(w).max() > limit else "neither"
        bar = figure.colorbar(image, ax=list(row), extend=extend, aspect=12, pad=0.01)
        bar.set_label("nats per\nunit of pixel", fontsize="small")
    return figure


def coefficients(
    weights: Float[ArrayLike, "d k"],
    feature_names: Sequence[str],
    class_names: Sequence[str],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """The coefficients as points: one line a feature, one marker a class.

    Args:
        weights: W.
        feature_names: d of them, from top to bottom.
        class_names: k of them, seven at most.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes. The scale is symmetric about 0.
    """
    w = np.asarray(weights)
    d, k = w.shape
    ax = new_figure(4.8, 0.23 * d + 1.2).subplots() if ax is None else ax
    place = np.arange(d)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.hlines(place, np.minimum(w.min(1), 0), np.maximum(w.max(1), 0), color="0.8", linewidth=1)
    for j in range(k):
        look = _look(j) | {"linestyle": ""}
        ax.plot(w[:, j], place, label=class_names[j], markersize=5, **look)
    ax.set_yticks(place, feature_names)
    ax.set_ylim(d - 0.5, -0.5)
    limit = 1.08 * (np.abs(w).max() or 1)
    ax.set_xlim(-limit, limit)
    ax.set_xlabel("coefficient (nats per unit of feature)")
    ax.grid(visible=True, axis="x", alpha=0.25)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(k, 3))
    return ax


def reliability(
    curve: ReliabilityCurve,
    *,
    color: str = COLOURS[0],
    ax: "Axes | None" = None,
) -> "Axes":
    """Reliability diagram: the share of right predictions against how sure they were. Calibrated is the diagonal.

    Every bin is a point, the larger the more rows it holds, with a bar of uncertainty.

    Args:
        curve: of which the weights are read as numbers of rows: a bar is the 95 % interval (Wilson's) of a share of so
            many rows. Empty bins are left out.
        color: of the points.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    ax = new_figure(4.2, 4.2).subplots() if ax is None else ax
    occupied = np.asarray(curve.weight) > 0
    confidence, accuracy, rows = (np.asarray(part)[occupied] for part in curve)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    low, high = _wilson(accuracy, rows)
    size = 15 + 110 * rows / max(rows.sum(), 1)
    ax.scatter(confidence, accuracy, s=size, color=color, zorder=3, clip_on=False)
    ax.vlines(confidence, low, high, color="0.2", linewidth=1, zorder=4, clip_on=False)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_aspect("equal")
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    ax.grid(visible=True, alpha=0.25)
    return ax


def confidence_histogram(
    curve: ReliabilityCurve, *, color: str = COLOURS[0], ax: "Axes | None" = None
) -> "Axes":
    """How many rows each bin of equal width of a reliability curve holds, as numbers above bars.

    Args:
        curve: made with ``equal_width_bins``.
        color: of the bars.
        ax: where to draw; a new figure if ``None``.

    Returns:
        The axes.
    """
    ax = new_figure(4.2, 1.4).subplots() if ax is None else ax
    rows = np.asarray(curve.weight)
    centres = (np.arange(len(rows)) + 0.5) / len(rows)
    bars = ax.bar(centres, rows, width=0.9 / len(rows), color=color, alpha=0.6)
    ax.bar_label(bars, [f"{n:.0f}" if n > 0 else "" for n in rows], fontsize="small")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.35 * (rows.sum() or 1))
    ax.set_xlabel("confidence")
    ax.set_ylabel("rows")
    return ax


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, outside ``pyplot``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = 'figures need matplotlib: pip install "probsoftmax[plots]"'
        raise ImportError(message) from error
    return Figure(figsize=(width, height), layout="constrained")


def _look(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "linestyle": STYLES[i], "marker": MARKERS[i]}


def _wilson(share, n, z=1.96):
    """Ends of Wilson's score interval for a share of n."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half
