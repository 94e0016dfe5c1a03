r"""Linear softmax classification, read as a probability model, in JAX.

Bayes' rule, :math:`p(W \mid X, y) \propto p(y \mid X, W)\, p(W)`: scores :math:`\eta = XW + b` are unnormalised
log-probabilities, their log-softmax is the likelihood, and a Gaussian on W is the prior. ``fit_mle`` maximises the
likelihood, ``fit_map`` the product; every fit says how far, at most, it is from the optimum.

>>> import probsoftmax as ps
>>> data = ps.make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
>>> fit = ps.fit_map(data, ps.GaussianPrior(precision=1.0))
>>> fit.status == ps.Status.CONVERGED
Array(True, dtype=bool)
"""

from probsoftmax.brier import BrierDecomposition as BrierDecomposition
from probsoftmax.brier import brier_decomposition as brier_decomposition
from probsoftmax.calibration import brier_score as brier_score
from probsoftmax.calibration import equal_mass_bins as equal_mass_bins
from probsoftmax.calibration import equal_width_bins as equal_width_bins
from probsoftmax.calibration import expected_calibration_error as expected_calibration_error
from probsoftmax.calibration import reliability_curve as reliability_curve
from probsoftmax.data import Data as Data
from probsoftmax.data import make_data as make_data
from probsoftmax.evidence import EvidenceEstimate as EvidenceEstimate
from probsoftmax.evidence import EvidenceFit as EvidenceFit
from probsoftmax.evidence import fit_evidence as fit_evidence
from probsoftmax.evidence import log_evidence as log_evidence
from probsoftmax.evidence import log_restricted_evidence as log_restricted_evidence
from probsoftmax.evidence import log_restricted_evidence_lanczos as log_restricted_evidence_lanczos
from probsoftmax.fit import Fit as Fit
from probsoftmax.fit import fit_map as fit_map
from probsoftmax.fit import fit_mle as fit_mle
from probsoftmax.inference import LikelihoodRatioTest as LikelihoodRatioTest
from probsoftmax.inference import likelihood_ratio_test as likelihood_ratio_test
from probsoftmax.inference import sandwich as sandwich
from probsoftmax.inference import summarize as summarize
from probsoftmax.information import cross_entropy as cross_entropy
from probsoftmax.information import entropy as entropy
from probsoftmax.information import kl_divergence as kl_divergence
from probsoftmax.leave_one_out import leave_one_out as leave_one_out
from probsoftmax.likelihood import log_likelihood as log_likelihood
from probsoftmax.likelihood import negative_log_likelihood as negative_log_likelihood
from probsoftmax.linear import Params as Params
from probsoftmax.linear import init_params as init_params
from probsoftmax.linear import logits as logits
from probsoftmax.linear import predict as predict
from probsoftmax.linear import predict_log_proba as predict_log_proba
from probsoftmax.linear import predict_proba as predict_proba
from probsoftmax.losses import crammer_singer_hinge as crammer_singer_hinge
from probsoftmax.losses import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from probsoftmax.losses import softmax_cross_entropy as softmax_cross_entropy
from probsoftmax.losses import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from probsoftmax.losses import weston_watkins_hinge as weston_watkins_hinge
from probsoftmax.numerics import log_softmax as log_softmax
from probsoftmax.numerics import logsumexp as logsumexp
from probsoftmax.numerics import softmax as softmax
from probsoftmax.objective import log_joint as log_joint
from probsoftmax.objective import map_objective as map_objective
from probsoftmax.objective import mle_objective as mle_objective
from probsoftmax.objective import svm_objective as svm_objective
from probsoftmax.path import fit_path as fit_path
from probsoftmax.posterior import Posterior as Posterior
from probsoftmax.posterior import laplace as laplace
from probsoftmax.posterior import laplace_diagonal as laplace_diagonal
from probsoftmax.posterior import laplace_kronecker as laplace_kronecker
from probsoftmax.posterior import log_density as log_density
from probsoftmax.posterior import logit_covariance as logit_covariance
from probsoftmax.posterior import marginal_variances as marginal_variances
from probsoftmax.posterior import sample as sample
from probsoftmax.posterior import shift_to_mean as shift_to_mean
from probsoftmax.predictive import predictive_monte_carlo as predictive_monte_carlo
from probsoftmax.predictive import predictive_probit as predictive_probit
from probsoftmax.prior import GaussianPrior as GaussianPrior
from probsoftmax.prior import log_prior as log_prior
from probsoftmax.prior import precision_from_glmnet as precision_from_glmnet
from probsoftmax.prior import precision_from_sklearn as precision_from_sklearn
from probsoftmax.prior import precision_from_weight_decay as precision_from_weight_decay
from probsoftmax.separation import Separation as Separation
from probsoftmax.separation import separation as separation
from probsoftmax.solvers import LBFGS as LBFGS
from probsoftmax.solvers import FirstOrder as FirstOrder
from probsoftmax.solvers import Minimized as Minimized
from probsoftmax.solvers import Newton as Newton
from probsoftmax.solvers import NewtonCG as NewtonCG
from probsoftmax.solvers import Status as Status
from probsoftmax.solvers import minimize as minimize
from probsoftmax.summary import Summary as Summary
from probsoftmax.temperature import TemperatureFit as TemperatureFit
from probsoftmax.temperature import fit_temperature as fit_temperature
from probsoftmax.validation import CrossValidation as CrossValidation
from probsoftmax.validation import cross_validate as cross_validate
from probsoftmax.validation import stratified_folds as stratified_folds

__version__ = "0.1.0"
