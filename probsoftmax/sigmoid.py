r"""The case of two classes with the scores :math:`[x, 0]`: its log-sum-exp and its probability.

Private, and exact to the last digits in value and in every derivative, like all of ``numerics``.
"""

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Float


@jax.custom_jvp
def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r""":math:`\log(1 + e^x) = \max(x, 0) + \log(1 + e^{-|x|})`, two terms of one sign."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return softplus(x), sigmoid(x) * dx


@jax.custom_jvp
def sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r""":math:`\sigma(x) = 1 / (1 + e^{-x})`, exact at both ends, and so is :math:`1 - \sigma(x) = \sigma(-x)`."""
    return 1 / (1 + jnp.exp(-x))


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return sigmoid(x), sigmoid(x) * sigmoid(-x) * dx
