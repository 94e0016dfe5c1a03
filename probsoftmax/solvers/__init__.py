"""Solvers: one file a solver, one loop (``descent``), one certificate, one place that sums over rows (``problem``)."""

from probsoftmax.solvers.descent import Solution as Solution
from probsoftmax.solvers.descent import Solver as Solver
from probsoftmax.solvers.lbfgs import LBFGS as LBFGS
from probsoftmax.solvers.newton import Newton as Newton
from probsoftmax.solvers.status import Status as Status
