"""Figures: what is drawn where, in units that are named, and nothing changed outside the figure."""

import io
import sys
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from probsoftmax import plots
from probsoftmax.calibration import ReliabilityCurve

RNG = np.random.default_rng(0)
TAU = np.logspace(-3, 2, 6)
CURVES = {"train": TAU / 100, "validation": np.abs(np.log10(TAU)), "test": np.ones(6)}
APART = {"MLE\n× 10": {"train": 0.0, "test": 5.0}, "MLE": {"train": 0.1, "test": 2.0}}


def curve_of(confidence, accuracy, rows):
    return ReliabilityCurve(jnp.asarray(confidence), jnp.asarray(accuracy), jnp.asarray(rows))


CURVE = curve_of([np.nan, 0.3, 0.5, 0.9], [np.nan, 0.0, 0.6, 1.0], [0, 3, 5, 40.0])
WEIGHTS = RNG.normal(size=(12, 3))
FEATURES, CLASSES = [f"feature {i}" for i in range(12)], ["a", "b", "c"]


def draw_sweep(ax=None) -> Any:  # the types of matplotlib are too wide to be of use here
    return plots.sweep(TAU, CURVES, label="NLL (nats per example)", apart=APART, best=1.0, ax=ax)


DRAW = [
    draw_sweep,
    lambda ax=None: plots.coefficients(WEIGHTS, FEATURES, CLASSES, ax=ax),
    lambda ax=None: plots.reliability(CURVE, ax=ax),
    lambda ax=None: plots.confidence_histogram(CURVE, ax=ax),
]


@pytest.mark.parametrize("draw", DRAW)
def test_draws_into_the_axes_it_is_given_or_into_its_own(draw):
    given = Figure().subplots()
    assert draw(given) is given
    own = draw()
    assert own.figure is not given.figure
    assert own.get_xlabel()
    assert own.get_ylabel() or len(own.get_yticklabels()) == 12
    file = io.BytesIO()
    own.figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def settings():
    # To ask for the backend would be to choose one.
    return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}


def test_nothing_global_is_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it would fail
    before = settings()
    for draw in DRAW:
        draw()
    plots.weight_images({"MAP": WEIGHTS}, (3, 4), CLASSES)
    assert settings() == before


def test_matplotlib_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "probsoftmax\[plots\]"'):
        plots.reliability(CURVE)


def lines_of(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.get_lines()}


def test_a_sweep_shows_the_curves_and_what_stands_apart():
    ax = draw_sweep()
    lines = lines_of(ax)
    for name, values in CURVES.items():
        np.testing.assert_array_equal(lines[name].get_xdata(), TAU)
        np.testing.assert_array_equal(lines[name].get_ydata(), values)
    assert "best, τ = 1" in lines
    ticks = dict(zip([t.get_text() for t in ax.get_xticklabels()], ax.get_xticks(), strict=True))
    assert list(ticks)[:2] == list(APART)  # in this order, left of all the precisions
    assert ticks["MLE\n× 10"] < ticks["MLE"] < TAU[0] < ticks["$10^{2}$"]
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.get_lines()}
    assert {(ticks["MLE"], 0.1), (ticks["MLE"], 2.0), (ticks["MLE\n× 10"], 5.0)} <= drawn
    left, right = ax.get_xlim()
    assert left < ticks["MLE\n× 10"]
    assert right > TAU[-1]


def test_curves_differ_in_more_than_colour():
    lines = [lines_of(draw_sweep())[name] for name in CURVES]
    assert len({line.get_color() for line in lines}) == len(lines)
    assert len({line.get_marker() for line in lines}) == len(lines)


@pytest.mark.parametrize("tau", [[1.0], [0.3, 0.7], [2e-5, 4e7], np.logspace(-30, 30, 5)])
def test_any_range_has_ticks_inside_the_axes(tau):
    ax = plots.sweep(
        tau, {"test": np.ones(len(tau))}, label="NLL (nats)", apart={"MLE": {"test": 1.0}}
    )
    left, right = ax.get_xlim()
    ticks = ax.get_xticks()
    assert 2 <= len(ticks) <= 9
    assert ((ticks >= left) & (ticks <= right)).all()


def test_the_legend_covers_no_data():
    ax = draw_sweep()
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_images_share_one_symmetric_scale_a_fit():
    weights = {"MLE": 100 * WEIGHTS, "MAP": WEIGHTS}
    figure = plots.weight_images(weights, (3, 4), CLASSES)
    images = [image for ax in figure.axes for image in ax.get_images()]
    assert len(images) == 6
    scales = [image.get_clim() for image in images]
    assert len(set(scales[:3])) == len(set(scales[3:])) == 1
    assert all(low == -high for low, high in scales)
    np.testing.assert_allclose(scales[0], 100 * np.array(scales[3]))
    np.testing.assert_array_equal(images[4].get_array(), WEIGHTS[:, 1].reshape(3, 4))


def test_images_of_nothing_but_zeros_have_a_scale():
    figure = plots.weight_images({"MAP": np.zeros((4, 2))}, (2, 2), ["a", "b"])
    figure.draw_without_rendering()


def test_coefficients_stand_beside_their_features():
    ax = plots.coefficients(WEIGHTS, FEATURES, CLASSES)
    assert [label.get_text() for label in ax.get_yticklabels()] == FEATURES
    np.testing.assert_array_equal(lines_of(ax)["b"].get_xdata(), WEIGHTS[:, 1])
    left, right = ax.get_xlim()
    assert left == -right
    assert right > np.abs(WEIGHTS).max()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first feature is on top


def test_reliability_leaves_out_empty_bins_and_shows_their_uncertainty():
    ax: Any = plots.reliability(CURVE)
    points, bars = ax.collections
    np.testing.assert_allclose(points.get_offsets(), [[0.3, 0], [0.5, 0.6], [0.9, 1]])
    sizes = points.get_sizes()
    assert sizes[0] < sizes[1] < sizes[2]
    for segment, right, rows in zip(bars.get_segments(), [0, 3, 40], [3, 5, 40], strict=True):
        wilson = scipy.stats.binomtest(right, rows).proportion_ci(method="wilson")
        np.testing.assert_allclose(segment[:, 1], [wilson.low, wilson.high], atol=1e-4)


def test_a_histogram_writes_how_many_rows_a_bin_has():
    ax = plots.confidence_histogram(CURVE)
    assert [text.get_text() for text in ax.texts] == ["", "3", "5", "40"]
    assert ax.get_ylim()[1] > 40


def test_a_curve_without_rows_can_be_drawn():
    empty = curve_of([np.nan] * 3, [np.nan] * 3, [0.0] * 3)
    for draw in (plots.reliability, plots.confidence_histogram):
        ax: Any = draw(empty)
        ax.figure.draw_without_rendering()
