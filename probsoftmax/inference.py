r"""Inference: what the data say about each coefficient, from the curvature of the likelihood at its maximum.

The coefficients of a softmax are determined up to one number added to all classes, so what can be estimated are
contrasts with a reference class r, :math:`\beta_j = w_j - w_r`. Their information and covariance are

.. math:: I_{jl} = \sum_i s_i\,(p_{ij}\delta_{jl} - p_{ij} p_{il})\, \tilde x_i \tilde x_i^\top, \qquad
          \mathrm{cov}(\hat\beta) = I^{-1}.

A Gaussian prior with precisions :math:`\tau` on the coefficients themselves, whatever is taken for the reference, is
one on the contrasts with precision

.. math:: R_{jl} = \tau_j \delta_{jl} - \tau_j \tau_l \Big/ \sum_c \tau_c,

added to the information: the posterior by Laplace's approximation. All of it in float64 on the host, on an orthonormal
basis of the features, so that neither their units nor their correlations cost digits.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from probsoftmax.contrasts import contrasts
from probsoftmax.data import Data
from probsoftmax.likelihood import check_fit
from probsoftmax.linear import Params
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Float
from probsoftmax.summary import Summary, chi_square_tail

Covariance = Callable[[Float[np.ndarray, "n q"]], Float[np.ndarray, "q q"]]


def inverse_information(scores: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "q q"]:
    """The covariance of the rows' scores that the model promises: the identity.

    Args:
        scores: gradients of the rows' log-likelihoods, in units in which the information is the identity.

    Returns:
        The identity ``(q, q)``; the covariance of the estimates is then the inverse of the information.

    >>> print(inverse_information(np.ones((3, 1))))
    [[1.]]
    """
    return np.eye(scores.shape[1])


def sandwich(scores: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "q q"]:
    r"""The covariance of the rows' scores that is seen, :math:`\sum_i g_i g_i^\top`: robust standard errors.

    For weights that are not frequencies (importance, inverse probability of being sampled) and for models that are not
    quite true. A row is one draw, however much it weighs. No correction for small samples (HC0).

    Args:
        scores: gradients g of the rows' log-likelihoods, weights included, in units in which the information is the
            identity.

    Returns:
        ``(q, q)``; the covariance of the estimates has it between two inverses of the information.

    References:
        White (1982), Maximum likelihood estimation of misspecified models.

    >>> print(sandwich(np.array([[1.0], [2.0]])))
    [[5.]]
    """
    return scores.T @ scores


def summarize(
    params: Params,
    data: Data,
    reference: int = 0,
    *,
    prior: GaussianPrior | None = None,
    covariance: Covariance = inverse_information,
    level: float = 0.95,
    feature_names: Sequence[Hashable] | None = None,
) -> Summary:
    r"""Estimates, standard errors and tests of a fit, as a table.

    It runs on the host, in float64, and cannot be traced. Weights are read as frequencies: a row of weight 2 is two
    rows. If they are not, take ``covariance=sandwich``, and leave BIC alone.

    Args:
        params: the fit, by ``fit_mle``; or by ``fit_map``, with its prior.
        data: the n examples it was fitted to.
        reference: number of the class that the others are held against.
        prior: the prior of a MAP. The summary then gives posterior standard deviations and no tests.
        covariance: :func:`inverse_information`, :func:`sandwich`, or a function of your own of the rows' scores
            ``(n, q)``, in the order of ``data``: one that sums them by cluster first, say.
        level: of the intervals.
        feature_names: d names for the table; ``x0``, ``x1``, ... if ``None``. The classes have those of ``data``.

    Returns:
        A :class:`Summary`; ``print`` it.

    Raises:
        ValueError: params that are not the maximum of the likelihood (or posterior) to a thousandth of a standard
            error; separated classes, or a class without an example; features that are collinear with each other or
            with the bias, and not told apart by a prior; a reference that is no class, a level outside of 0..1; shapes
            and numbers of names that do not fit; a sandwich around a prior.

    References:
        Agresti (2013), Categorical Data Analysis, chapter 8.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.fit import fit_mle
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0]], ["no", "yes", "no", "yes"])
    >>> found = summarize(fit_mle(data).params, data, feature_names=["dose"])
    >>> print(found.to_pandas()[["estimate", "std. error"]].round(3))
                   estimate  std. error
    class feature
    yes   dose        0.908       1.085
          bias       -1.362       1.975
    """
    check_fit(params, data)
    d, k = params.weights.shape
    if not 0 <= reference < k:
        raise ValueError(f"reference: expected a class 0..{k - 1}, got {reference}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    names = tuple(f"x{f}" for f in range(d)) if feature_names is None else tuple(feature_names)
    if len(names) != d:
        raise ValueError(f"feature_names: expected {d}, one for each feature, got {len(names)}")
    if prior is not None and covariance is not inverse_information:
        raise ValueError(
            "covariance: expected inverse_information, for a posterior has no sampling variance"
        )
    at = contrasts(params, data, reference, prior, names)
    classes = tuple(range(k)) if data.classes is None else data.classes
    theta = np.r_[np.asarray(params.weights, float), np.asarray(params.bias, float)[None]]
    others = [j for j in range(k) if j != reference]
    # cov = B M B^T for the root B of the inverse information.
    spread = (at.root @ covariance(at.scores) @ at.root.T).reshape(k - 1, d + 1, k - 1, d + 1)
    return Summary(
        estimates=theta[:, others] - theta[:, [reference]],
        covariance=spread.transpose(1, 0, 3, 2),
        log_likelihood=-at.loss,
        null_log_likelihood=float(at.totals @ np.log(at.totals / at.totals.sum())),
        total_weight=float(at.totals.sum()),
        features=(*names, "bias"),
        classes=tuple(classes[j] for j in others),
        reference=classes[reference],
        level=level,
        effective_parameters=at.measured,
        has_prior=prior is not None,
    )


class LikelihoodRatioTest(NamedTuple):
    """A test of the restrictions that lead from one model to another within it."""

    statistic: float
    """Twice the difference of the log-likelihoods."""
    degrees_of_freedom: int
    """The number of parameters by which the models differ."""
    p_value: float
    """Chance of so large a statistic if the restricted model is true, for many examples: that of a chi-square."""


def likelihood_ratio_test(full: Summary, restricted: Summary) -> LikelihoodRatioTest:
    r"""Whether a model fits significantly better than one within it, :math:`2(\ell - \ell_0) \sim \chi^2`.

    Better than Wald's z where estimates are large: there their standard errors grow faster than they do.

    Args:
        full: summary of a maximum-likelihood fit.
        restricted: summary of one to the same examples and weights, with some of the features (by name).

    Returns:
        Statistic, degrees of freedom and p-value. Weights that are not frequencies make it meaningless.

    Raises:
        ValueError: fits with a prior; of different labels, weights or classes; features that the full model does not
            have; as many parameters as the full model, or more; a likelihood above that of the full model.

    References:
        Wilks (1938), The large-sample distribution of the likelihood ratio for testing composite hypotheses.

    >>> from probsoftmax.data import make_data
    >>> labels = [0, 1, 1, 0, 0, 1]
    >>> data = make_data([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]], labels)
    >>> full = summarize(Params(np.array([[0, -2 * np.log(2)]]), np.array([0, np.log(2)])), data)
    >>> half = summarize(Params(np.zeros((0, 2)), np.zeros(2)), make_data(np.zeros((6, 0)), labels))
    >>> print(likelihood_ratio_test(full, half).statistic)  # odds of 1 : 2 and 2 : 1, or 1 : 1
    0.6795961
    """
    if full.has_prior or restricted.has_prior:
        raise ValueError(
            "expected two maximum-likelihood fits: a likelihood under a prior is not at its maximum"
        )
    classes = {full.reference, *full.classes}
    if classes != {restricted.reference, *restricted.classes}:
        raise ValueError("restricted: expected the classes of the full model")
    for name in ("total_weight", "null_log_likelihood"):
        ours, theirs = getattr(full, name), getattr(restricted, name)
        if not math.isclose(ours, theirs, rel_tol=1e-9):
            raise ValueError(
                f"restricted: expected a fit to the labels and weights of the full model, whose {name} is {ours:.10g}; "
                f"got {theirs:.10g}"
            )
    foreign = [name for name in restricted.features if name not in full.features]
    if foreign:
        raise ValueError(
            f"restricted: expected some of the features of the full model, got {foreign[0]!r}"
        )
    freedom = full.num_parameters - restricted.num_parameters
    if freedom < 1:
        raise ValueError(
            f"restricted: expected fewer parameters than the {full.num_parameters} of the full model, got "
            f"{restricted.num_parameters}"
        )
    statistic = 2 * (full.log_likelihood - restricted.log_likelihood)
    # Two optima that are each right to some roundings may be the wrong way round by as much.
    if statistic < -1e-6 * abs(full.log_likelihood):
        raise ValueError(
            "restricted: expected a model within the full one, got a larger likelihood"
        )
    return LikelihoodRatioTest(statistic, freedom, chi_square_tail(statistic, freedom))
