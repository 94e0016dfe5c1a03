r"""Directions along which the likelihood never falls, in NumPy: the margins they give, and a linear program over them.

Coefficients are measured from those of class 0, on an orthonormal basis of what the features and the bias span. So
neither units nor collinear columns are seen here, and two directions that differ move some score.
"""

from typing import NamedTuple

import numpy as np

from probsoftmax.shapes import Bool, Float, Int


class Basis(NamedTuple):
    """Features and a column of ones on an orthonormal basis of their span, and the way back."""

    rows: Float[np.ndarray, "n m"]
    """Orthonormal columns times the root of n. Those behind the rank, which nothing spans, are 0."""
    back: Float[np.ndarray, "m m"]
    """Coefficients of the features, the bias last, are this times those of ``rows``."""
    rank: int

    @property
    def spanned(self) -> "Basis":
        """The part of the basis that the rows span."""
        rows, back = self.rows[:, : self.rank], self.back[:, : self.rank]
        return Basis(rows, back, self.rank)


class Pairs(NamedTuple):
    """The margins of labels before other classes, as linear functions of a direction."""

    row: Int[np.ndarray, " pairs"]
    label: Int[np.ndarray, " pairs"]
    rival: Int[np.ndarray, " pairs"]
    free: Bool[np.ndarray, " pairs"]
    """Whether the margin may be positive; it has to be 0 between two classes that both have a share of the row."""


def orthonormal(features: Float[np.ndarray, "n d"]) -> Basis:
    """A basis of all coefficients, from the singular values of scaled features; the bias is the last coefficient."""
    n, d = features.shape
    low, high = features.min(axis=0), features.max(axis=0)
    # The middle, for a constant column is exactly 0 after it; a mean would leave roundings, to be scaled up.
    middle = low / 2 + high / 2
    half = np.maximum(high - middle, middle - low)
    half = np.where(half > 0, half, 1)
    x = np.c_[(features - middle) / half, np.ones(n)]
    u, singular, v = np.linalg.svd(np.pad(x, ((0, max(0, d + 1 - n)), (0, 0))), full_matrices=False)
    spanned = singular > singular[0] * max(n, d + 1) * np.finfo(float).eps
    scaled = v.T * np.sqrt(n) / np.where(spanned, singular, singular[0])
    # x' = (x - middle) / half: W = W' / half, b = b' - middle W.
    weights = scaled[:-1] / half[:, None]
    back = np.r_[weights, scaled[-1:] - middle[None, :] @ weights]
    rows = np.where(spanned, u[:n] * np.sqrt(n), 0)
    return Basis(rows, back, int(spanned.sum()))


def all_pairs(labels: Float[np.ndarray, "n k"]) -> Pairs:
    """Each row's first class against every other."""
    n, k = labels.shape
    first = np.argmax(labels > 0, axis=1)
    rival = np.arange(k)[None, :] != first[:, None]
    row, other = np.nonzero(rival)
    return Pairs(row, first[row], other, labels[row, other] == 0)


def margins(
    rows: Float[np.ndarray, "n r"], pairs: Pairs, delta: Float[np.ndarray, "r k-1"]
) -> Float[np.ndarray, " pairs"]:
    """How far each label moves away from its rival along a direction."""
    scores = rows @ np.c_[np.zeros(len(delta)), delta]
    return scores[pairs.row, pairs.label] - scores[pairs.row, pairs.rival]


def maximal_direction(
    rows: Float[np.ndarray, "n r"], pairs: Pairs, k: int
) -> tuple[Bool[np.ndarray, " pairs"], Float[np.ndarray, "r k-1"]]:
    """Which pairs can be separated, and a direction that separates them all.

    The direction is scaled so that the smallest margin of a separated pair is 1. What the program says is put to the
    test: the direction is freed of what it does along ties, and each margin is then to be at least a half, or none. A
    pair that fails was separated by roundings alone, and is a tie.
    """
    r = rows.shape[1]
    allowed = pairs.free.copy()
    while allowed.any():
        strict, delta = _program(rows, pairs, allowed, k)
        if not strict.any():
            break
        free, _ = split_by_ties(rows, pairs, ~strict, k)
        free = free.reshape(r * (k - 1), -1)
        delta = (free @ (free.T @ delta.reshape(-1))).reshape(r, k - 1)
        apart = margins(rows, pairs, delta)
        if np.all(apart[strict] > 0.5):
            return strict, delta / apart[strict].min()
        allowed &= ~(strict & (apart <= 0.5))
    return np.zeros(len(allowed), bool), np.zeros((r, k - 1))


def _program(rows, pairs, allowed, k):
    """The linear program: separated pairs, and a direction with margins of at least 1 between them."""
    # SciPy takes long to import, and only this needs it.
    import scipy.optimize
    import scipy.sparse

    r, count = rows.shape[1], len(pairs.row)
    # -m = x . (delta_rival - delta_label), one line a pair, without the columns of class 0.
    line = np.repeat(np.arange(count), r)
    entries = []
    for classes, sign in ((pairs.label, -1.0), (pairs.rival, 1.0)):
        column = r * (classes[:, None] - 1) + np.arange(r)[None, :]
        there = np.repeat(classes > 0, r)
        value = sign * rows[pairs.row].reshape(-1)
        entries.append((value[there], line[there], column.reshape(-1)[there]))
    value, line, column = (np.concatenate(part) for part in zip(*entries, strict=True))
    shape = (count, r * (k - 1))
    minus_m = scipy.sparse.csr_array((value, (line, column)), shape=shape)
    t_minus_m = scipy.sparse.hstack([minus_m, scipy.sparse.eye_array(count)], format="csr")
    tied = ~pairs.free
    found = scipy.optimize.linprog(
        np.r_[np.zeros(r * (k - 1)), -np.ones(count)],
        A_ub=t_minus_m[pairs.free],
        b_ub=np.zeros(int(pairs.free.sum())),
        A_eq=t_minus_m[tied] if tied.any() else None,
        b_eq=np.zeros(int(tied.sum())) if tied.any() else None,
        bounds=np.r_[
            np.tile([-np.inf, np.inf], (r * (k - 1), 1)),
            np.c_[np.zeros(count), np.where(allowed, 1.0, 0.0)],
        ],
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    if found.x is None:
        raise ArithmeticError(f"the linear program of the separation failed: {found.message}")
    delta, gains = np.split(found.x, [r * (k - 1)])
    return gains > 0.5, delta.reshape(k - 1, r).T


def split_by_ties(
    rows: Float[np.ndarray, "n r"], pairs: Pairs, tied: Bool[np.ndarray, " pairs"], k: int
) -> tuple[Float[np.ndarray, "r k-1 q"], Float[np.ndarray, "r k-1 p"]]:
    """Orthonormal bases: of the directions whose margins at the tied pairs are 0, and of what is perpendicular."""
    r, size = rows.shape[1], rows.shape[1] * (k - 1)
    x = rows[pairs.row[tied]]
    classes = np.eye(k)[:, 1:]
    towards = classes[pairs.label[tied]] - classes[pairs.rival[tied]]
    lines = (x[:, :, None] * towards[:, None, :]).reshape(len(x), size)
    if not lines.size:
        return np.eye(size).reshape(r, k - 1, size), np.zeros((r, k - 1, 0))
    _, singular, v = np.linalg.svd(np.linalg.qr(lines, mode="r"), full_matrices=True)
    rank = int(np.sum(singular > singular[0] * max(lines.shape) * np.finfo(float).eps))
    return v[rank:].T.reshape(r, k - 1, -1), v[:rank].T.reshape(r, k - 1, -1)
