"""What the races run on: data that scikit-learn brings, and made ones like the embeddings of an image model."""

from typing import Any

import numpy as np
from sklearn import datasets

Sample = tuple[np.ndarray, np.ndarray]  # features (n, d) float64, labels (n,)


def digits() -> Sample:
    """The bundled digits: 1797 x 64, 10 classes, which a direction nearly separates."""
    images: Any = datasets.load_digits()
    return images.data / 16, images.target


def wine() -> Sample:
    """The bundled wines, standardised: 178 x 13, 3 classes."""
    wines: Any = datasets.load_wine()
    return (wines.data - wines.data.mean(0)) / wines.data.std(0), wines.target


def embeddings(
    n: int,
    d: int,
    k: int,
    *,
    decay: float = 1.0,
    cone: float = 3.0,
    separation: float = 1.0,
    seed: int = 0,
) -> Sample:
    """Rows of length 1 like those of an image model: spectra that fall like a power, and a direction common to all.

    ``decay`` and ``cone`` make the problem ill-conditioned, ``separation`` makes the classes nearly separable.
    """
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** (-decay / 2)
    means = rng.normal(size=(k, d)) * spectrum * separation
    common = rng.normal(size=d)
    y = rng.integers(0, k, n)
    x = means[y] + rng.normal(size=(n, d)) * spectrum + cone * common / np.linalg.norm(common)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def few_shot(tasks: int, k: int, shots: int, d: int) -> Sample:
    """Tasks of k classes, so many rows each: features (tasks, n, d) and labels (n,), the same in all."""
    y = np.repeat(np.arange(k), shots)
    found = []
    for seed in range(tasks):
        # More rows than are needed of every class; the first of each are taken.
        x, drawn = embeddings(4 * shots * k, d, k, seed=seed)
        found.append(x[np.concatenate([np.flatnonzero(drawn == c)[:shots] for c in range(k)])])
    return np.array(found), y


MAKERS = {
    "digits": digits,
    "S": lambda: embeddings(4000, 192, 40),
    "S, ill-conditioned": lambda: embeddings(4000, 192, 40, cone=10, decay=2),
    "S, nearly separable": lambda: embeddings(4000, 192, 40, separation=2),
    "M": lambda: embeddings(50_000, 768, 100),
}
"""S and M are of the sizes of a small probe and of CLIP's on CIFAR-100."""
