r"""Entropy, cross-entropy and divergence of distributions: the information-theory reading of the loss.

:math:`H(p, q) = H(p) + KL(p \| q)`: against one-hot labels the entropy is 0, and minimising the cross-entropy, the
divergence and the negative log-likelihood are the same thing.
"""

import jax.numpy as jnp

from probsoftmax.shapes import Array, Float


def entropy(p: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    r"""Entropy :math:`H(p) = -\sum_j p_j \log p_j` in nats, with :math:`0 \log 0 = 0`.

    Args:
        p: probabilities ``(..., k)``.

    Returns:
        ``(...)``, between 0 and log k. The gradient at a zero probability, in truth +inf, is given as 0.

    >>> import jax.numpy as jnp
    >>> print(entropy(jnp.array([0.5, 0.5, 0.0])))
    0.6931472
    """
    return cross_entropy(p, p)


def cross_entropy(p: Float[Array, "*b k"], q: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    r"""Cross-entropy :math:`H(p, q) = -\sum_j p_j \log q_j = H(p) + KL(p \| q)` of two distributions, in nats.

    For probabilities that already exist. From scores use ``softmax_cross_entropy``, which never forms them.

    Args:
        p: true probabilities ``(..., k)``; a one-hot row picks the likelihood of its class.
        q: given probabilities ``(..., k)``.

    Returns:
        ``(...)``; +inf where q is 0 and p is not; classes with p = 0 count nothing, in value and gradient.

    >>> import jax.numpy as jnp
    >>> print(cross_entropy(jnp.array([0.0, 1.0]), jnp.array([0.75, 0.25])))
    1.3862944
    """
    counts = p != 0
    log_q = jnp.log(jnp.where(counts, q, 1))
    return -jnp.sum(jnp.where(counts, p, 0) * log_q, axis=-1)


def kl_divergence(p: Float[Array, "*b k"], q: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    r"""Kullback-Leibler divergence :math:`KL(p \| q) = \sum_j p_j \log (p_j / q_j) \ge 0` in nats.

    Args:
        p: true probabilities ``(..., k)``.
        q: given probabilities ``(..., k)``.

    Returns:
        ``(...)``; 0 if the two are equal, +inf where q is 0 and p is not.

    >>> import jax.numpy as jnp
    >>> print(kl_divergence(jnp.array([0.5, 0.5]), jnp.array([0.75, 0.25])))
    0.14384103
    """
    counts = p != 0
    ratio = jnp.where(counts, p, 1) / jnp.where(counts, q, 1)
    return jnp.sum(jnp.where(counts, p, 0) * jnp.log(ratio), axis=-1)
