"""Whatever the scores are, in magnitude, spread and number: drawn by hypothesis, judged by 50 digits."""

from functools import cache

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_softmax import softmax_truth, softplus_truth, ulps
from test_numerics import ULPS

import probsoftmax as ps

WIDTHS = (1, 2, 3, 7)  # every width is compiled once for each precision


@cache
def everything(width, dtype):  # noqa: ARG001 - one entry a width and precision, one compilation each
    """Value, gradient and Hessian of the loss of each label, and the probabilities, of one row."""

    @jax.jit
    def functions(x):
        labels = np.arange(width)
        loss = ps.softmax_cross_entropy_with_integer_labels
        over_labels = [jax.vmap(f, in_axes=(None, 0)) for f in (loss, jax.grad(loss))]
        return (
            over_labels[0](x, labels),
            over_labels[1](x, labels),
            jax.hessian(loss)(x, 0),
            ps.softmax(x),
        )

    return functions


@st.composite
def rows(draw):
    """Scores of one scale around a centre, some of them tied, impossible or far away."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = draw(st.sampled_from(WIDTHS))
    scale = 10.0 ** draw(st.floats(-6, 3))
    centre = draw(st.sampled_from([0.0, 1.0, -1.0])) * 10.0 ** draw(st.floats(-3, 12))
    row = [scale * draw(st.floats(-1, 1)) for _ in range(width)]
    for j in range(1, width):
        row[j] = draw(st.sampled_from([row[j]] * 6 + [row[0], -np.inf, row[j] * 100]))
    return (np.array(row) + centre).astype(dtype)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows())
def test_value_gradient_and_hessian_of_any_row(row):
    dtype = row.dtype
    truth = softmax_truth(row)
    value, gradient, hessian, p = everything(len(row), dtype)(row)
    assert {value.dtype, gradient.dtype, hessian.dtype, p.dtype} == {dtype}
    assert ulps(value, [-one for one in truth.log_p], dtype) <= ULPS
    assert ulps(gradient, [truth.gradient(j) for j in range(len(row))], dtype) <= ULPS
    assert ulps(hessian, truth.hessian(), dtype) <= ULPS
    assert ulps(p, truth.p, dtype) <= ULPS


@cache
def binary(dtype):  # noqa: ARG001 - one entry a precision
    @jax.jit
    def functions(x, y):
        loss = ps.sigmoid_binary_cross_entropy
        return loss(x, y), jax.grad(loss)(x, y), jax.grad(jax.grad(loss))(x, y)

    return functions


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([np.float32, np.float64]), st.floats(-750, 750), st.booleans())
def test_any_score_of_one_neuron(dtype, score, positive):
    score = dtype(score)
    sign = -1 if positive else 1
    truth = softmax_truth([sign * score, 0.0])
    value, slope, curvature = binary(dtype)(score, dtype(positive))
    assert ulps(value, [softplus_truth(sign * float(score))], dtype) <= ULPS
    assert ulps(slope, [sign * truth.p[0]], dtype) <= ULPS
    assert ulps(curvature, [truth.p[0] * truth.q[0]], dtype) <= ULPS
