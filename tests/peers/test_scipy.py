"""SciPy's own tests of `logsumexp`, `softmax` and `log_softmax`, from its wheel, of our functions."""

import numpy as np
import pytest
from scipy.special.tests import test_logsumexp as theirs
from scipy.special.tests.test_logsumexp import TestLogSoftmax, TestLogSumExp, TestSoftmax

import probsoftmax as ps

__all__ = ["TestLogSoftmax", "TestLogSumExp", "TestSoftmax"]


@pytest.fixture(autouse=True)
def _ours(replace):
    replace(theirs, {"logsumexp": logsumexp, "softmax": softmax, "log_softmax": log_softmax})


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    a = _real(a)
    if b is not None or return_sign:
        pytest.skip("a sum of exponentials, without factors and so without a sign")
    if a.size == 0:
        # A sum of nothing is refused by ours; answered here for the sake of what the test asks next.
        with pytest.raises(ValueError, match="at least one class"):
            ps.logsumexp(a, axis)
        return np.float64(-np.inf)
    total = np.asarray(ps.logsumexp(a, axis))
    if keepdims:
        total = np.expand_dims(total, axis)
    return total[()]


def softmax(x, axis=None):
    return np.asarray(ps.softmax(_real(x), axis))[()]


def log_softmax(x, axis=None):
    return np.asarray(ps.log_softmax(_real(x), axis))[()]


def _real(x):
    """Ours take arrays; lists become arrays here, as in SciPy."""
    x = np.asarray(x)
    if np.iscomplexobj(x):
        with pytest.raises(TypeError, match="expected real numbers"):
            ps.logsumexp(x)
        pytest.skip("scores are real numbers: complex ones are a TypeError")
    return x
