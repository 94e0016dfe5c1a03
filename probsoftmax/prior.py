r"""The prior: independent Gaussians on the coefficients,

.. math:: \log p(W) = \sum_{ij} \tfrac12 \left[\log\frac{\tau_{ij}}{2\pi} - \tau_{ij} (W_{ij} - M_{ij})^2\right].

The precision :math:`\tau` is on the scale of the *summed* negative log-likelihood. Other packages write the same
penalty on other scales; the conversions at the end of this file are exact.
"""

import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from probsoftmax.checks import check_broadcasts, check_floating, check_values
from probsoftmax.linear import Params
from probsoftmax.shapes import Array, Float


class GaussianPrior(NamedTuple):
    """Gaussian prior on the coefficients, flat where a precision is 0 (the bias, by default).

    A precision of 0 everywhere makes maximum a posteriori into maximum likelihood. A negative, NaN or infinite
    precision is a ``ValueError`` where it is used; a traced one, which has no value yet, makes value and gradient NaN.
    """

    precision: Float[ArrayLike, "..."] = 1.0
    """Precision of the weights; broadcasts to ``(d, k)``: one number, ``(d, 1)`` by feature, ``(k,)`` by class."""
    bias_precision: Float[ArrayLike, "..."] = 0.0
    """Precision of the bias around 0; broadcasts to ``(k,)``."""
    mean: Float[ArrayLike, "..."] = 0.0
    """Mean M of the weights; broadcasts to ``(d, k)``."""


def log_prior(params: Params, prior: GaussianPrior) -> Float[Array, ""]:
    r"""Log-density of the coefficients, normalised where the precision is positive, in nats.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        prior: precisions and mean.

    Returns:
        A scalar. Entries with precision 0 (a flat, improper prior) contribute exactly 0; so does their derivative in
        the precision, which in truth has no limit there.

    Raises:
        TypeError: a precision or mean that is not a real number.
        ValueError: a precision or mean that does not broadcast to its coefficients; a precision that is negative,
            NaN or infinite.

    >>> from probsoftmax.linear import init_params
    >>> print(log_prior(init_params(1, 2), GaussianPrior(precision=1.0)))  # 2 log N(0; 0, 1)
    -1.837877
    """
    terms = expand(prior, params)
    log_normaliser = _log_normaliser(terms.precision) + _log_normaliser(terms.bias_precision)
    return log_normaliser - penalty(params, prior)


def penalty(params: Params, prior: GaussianPrior) -> Float[Array, ""]:
    r"""Minus the log-prior without its constant: :math:`\tfrac12\sum\tau (W-M)^2 + \tfrac12\sum\tau_b b^2`, in nats.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        prior: precisions and mean.

    Returns:
        A scalar, at least 0.

    >>> print(penalty(Params(jnp.array([[3.0, -1.0]]), jnp.zeros(2)), GaussianPrior(precision=2.0)))
    10.0
    """
    terms = expand(prior, params)
    deviation = params.weights - terms.mean
    # (tau x) x and not tau (x x): a flat direction may hold numbers whose squares overflow, and 0 * inf is NaN.
    return 0.5 * (
        jnp.sum(terms.precision * deviation * deviation)
        + jnp.sum(terms.bias_precision * params.bias * params.bias)
    )


class Terms(NamedTuple):
    """A prior with one precision and one mean for each coefficient."""

    precision: Float[Array, "d k"]
    bias_precision: Float[Array, " k"]
    mean: Float[Array, "d k"]


class Positive(NamedTuple):
    """Numbers that are known to be positive, and finite, while a program is traced that has yet to see them."""

    value: Float[Array, "..."]


def traceable(prior: GaussianPrior, dtype: DTypeLike) -> GaussianPrior:
    """The prior as a compiled program takes it: in one dtype, so that 1, 1.0 and np.float32(1) are one trace.

    What is known of its values on the host is known while a program is traced, for the structure says so. A bias
    precision that is the number 0, as by default, is an empty array of nothing: ``None``. A precision whose entries
    are known, and all of them positive, is ``Positive``: the program then has nothing in it for optima that may not
    exist, and is a quarter smaller. Another positive value is no new trace, nor is another way to write it.
    """
    precision, bias_precision, mean = prior
    number = isinstance(bias_precision, int | float | np.generic | np.ndarray)
    flat = has_flat_bias(prior) or (number and not np.any(bias_precision))
    return GaussianPrior(
        cast(ArrayLike, if_positive(precision, dtype)),
        cast(ArrayLike, None) if flat else _as_array(bias_precision, dtype),
        _as_array(mean, dtype),
    )


def if_positive(
    values: Float[ArrayLike, "..."] | Positive, dtype: DTypeLike
) -> Float[Array, "..."] | Positive:
    """An array in one dtype, which says that it is ``Positive`` if its values are known, and that is true of them."""
    if isinstance(values, Positive):
        return values
    array = _as_array(values, dtype)
    known = not isinstance(array, jax.Array) or (
        not isinstance(array, jax.core.Tracer) and array.is_fully_addressable
    )
    return Positive(array) if known and np.all(_is_positive(np.asarray(array))) else array


def value_of(values: Float[ArrayLike, "..."] | Positive) -> Float[Array, "..."]:
    """The numbers, and nothing of what is known of them."""
    return cast(Array, values.value if isinstance(values, Positive) else values)


def _as_array(values: ArrayLike, dtype: DTypeLike) -> Float[Array, "..."]:
    """In one dtype. NumPy's, if it is not JAX's yet: JAX compiles a program for the conversion of a number."""
    if isinstance(values, jax.Array):
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        return cast(Array, np.asarray(values, dtype))


def has_flat_bias(prior: GaussianPrior) -> bool:
    """Whether it is known, of a traceable prior, that none of the biases has one."""
    return prior.bias_precision is None


def is_proper(prior: GaussianPrior) -> bool:
    """Whether it is known, of a traceable prior, that all of the weights have one."""
    return isinstance(prior.precision, Positive)


def expand(prior: GaussianPrior, params: Params) -> Terms:
    """The prior of every coefficient of ``params``, in their dtype."""
    if has_flat_bias(prior):
        prior = prior._replace(bias_precision=0.0)
    prior = prior._replace(precision=value_of(prior.precision))
    dtype = jnp.result_type(params.weights)
    shape, bias_shape = jnp.shape(params.weights), jnp.shape(params.bias)
    for name, value, target in (
        ("prior.precision", prior.precision, shape),
        ("prior.bias_precision", prior.bias_precision, bias_shape),
        ("prior.mean", prior.mean, shape),
    ):
        check_floating(name, value)
        check_broadcasts(name, value, target, "(that of the coefficients)")
    check_prior(prior)
    return Terms(
        _poisoned(jnp.broadcast_to(jnp.asarray(prior.precision, dtype), shape)),
        _poisoned(jnp.broadcast_to(jnp.asarray(prior.bias_precision, dtype), bias_shape)),
        jnp.broadcast_to(jnp.asarray(prior.mean, dtype), shape),
    )


def check_prior(prior: GaussianPrior) -> None:
    """``ValueError`` for a precision that is negative, NaN or infinite, or a mean that is not finite, unless traced."""
    for name in ("precision", "bias_precision"):
        check_values(f"prior.{name}", getattr(prior, name), _is_precision, "a finite number >= 0")
    check_values("prior.mean", prior.mean, np.isfinite, "a finite number")


def _is_precision(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & np.isfinite(values)


def _is_positive(values: np.ndarray) -> np.ndarray:
    # A subnormal number is 0 to a compiled program.
    return (values >= jnp.finfo(values.dtype).tiny) & np.isfinite(values)


def _poisoned(precision: Float[Array, "..."]) -> Float[Array, "..."]:
    # Multiplied, not selected: a selected constant would leave the derivative in the precision finite and wrong.
    return precision * jnp.where(precision >= 0, 1, jnp.nan).astype(precision.dtype)


def _log_normaliser(precision: Float[Array, "..."]) -> Float[Array, ""]:
    flat = precision == 0
    # Two logarithms: a subnormal quotient would be flushed to 0.
    terms = jnp.log(jnp.where(flat, 1, precision)) - math.log(2 * math.pi)
    return 0.5 * jnp.sum(jnp.where(flat, 0, terms))


def precision_from_sklearn(C: Float[ArrayLike, "..."]) -> Float[ArrayLike, "..."]:
    r"""Precision of scikit-learn's ``LogisticRegression(C=C)``: :math:`\tau = 1/C`.

    With two classes scikit-learn keeps one vector :math:`w = w_1 - w_0`, whose penalty :math:`\tfrac12 \|w\|^2` is
    that of the symmetric form at twice the precision: there :math:`\tau = 2/C`.

    Args:
        C: inverse strength of scikit-learn's penalty, > 0; infinity is no penalty.

    Returns:
        Precision for three classes or more.

    Raises:
        ValueError: a C that is not positive.

    >>> precision_from_sklearn(4.0)
    0.25
    """
    check_values("C", C, lambda values: values > 0, "a number > 0")
    return 1 / C


def precision_from_glmnet(lam: Float[ArrayLike, "..."], n: float) -> Float[ArrayLike, "..."]:
    r"""Precision of glmnet's ridge penalty (``alpha = 0``): :math:`\tau = n\lambda`.

    glmnet penalises standardised features unless told ``standardize = FALSE``; standardise them here as well.

    Args:
        lam: glmnet's lambda, on the mean loss, >= 0.
        n: number of examples, or the sum of their weights.

    Returns:
        Precision.

    Raises:
        ValueError: a lambda or n that is negative, NaN or infinite.

    >>> precision_from_glmnet(0.25, n=100)
    25.0
    """
    check_values("lam", lam, _is_precision, "a finite number >= 0")
    check_values("n", n, _is_precision, "a finite number >= 0")
    return lam * n


def precision_from_weight_decay(
    decay: Float[ArrayLike, "..."], n: float
) -> Float[ArrayLike, "..."]:
    r"""Precision of a weight decay that is *added to the gradient* of a mean loss: :math:`\tau = n\,\mathrm{wd}`.

    Decoupled decay (AdamW) is no Gaussian prior and has no precision. Most frameworks decay the bias as well: set
    ``bias_precision`` to the same number then.

    Args:
        decay: weight decay on the mean loss, >= 0.
        n: number of examples, or the sum of their weights.

    Returns:
        Precision.

    Raises:
        ValueError: a decay or n that is negative, NaN or infinite.

    >>> precision_from_weight_decay(1e-2, n=1000)
    10.0
    """
    check_values("decay", decay, _is_precision, "a finite number >= 0")
    check_values("n", n, _is_precision, "a finite number >= 0")
    return decay * n
