"""The posterior of the coefficients, as a Gaussian around the fit: one file a kind."""

from probsoftmax.posterior.diagonal import DiagonalPosterior as DiagonalPosterior
from probsoftmax.posterior.diagonal import laplace_diagonal as laplace_diagonal
from probsoftmax.posterior.full import FullPosterior as FullPosterior
from probsoftmax.posterior.full import laplace as laplace
from probsoftmax.posterior.gaussian import Posterior as Posterior
from probsoftmax.posterior.gaussian import log_density as log_density
from probsoftmax.posterior.gaussian import logit_covariance as logit_covariance
from probsoftmax.posterior.gaussian import marginal_variances as marginal_variances
from probsoftmax.posterior.gaussian import sample as sample
from probsoftmax.posterior.kronecker import KroneckerPosterior as KroneckerPosterior
from probsoftmax.posterior.kronecker import laplace_kronecker as laplace_kronecker
from probsoftmax.posterior.shift import shift_to_mean as shift_to_mean
