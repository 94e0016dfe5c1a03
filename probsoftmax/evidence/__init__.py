"""The evidence of a prior: exactly, by Lanczos where the Hessian is too large, and the prior chosen by it."""

from probsoftmax.evidence.choice import EvidenceFit as EvidenceFit
from probsoftmax.evidence.choice import fit_evidence as fit_evidence
from probsoftmax.evidence.dense import log_evidence as log_evidence
from probsoftmax.evidence.dense import log_restricted_evidence as log_restricted_evidence
from probsoftmax.evidence.lanczos import EvidenceEstimate as EvidenceEstimate
from probsoftmax.evidence.lanczos import (
    log_restricted_evidence_lanczos as log_restricted_evidence_lanczos,
)
