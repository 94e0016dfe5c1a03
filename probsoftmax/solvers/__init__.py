"""Solvers: one file a solver, one loop (``descent``), one certificate, one place that sums over rows (``problem``)."""

from probsoftmax.solvers.first_order import FirstOrder as FirstOrder
from probsoftmax.solvers.lbfgs import LBFGS as LBFGS
from probsoftmax.solvers.minimize import Minimized as Minimized
from probsoftmax.solvers.minimize import minimize as minimize
from probsoftmax.solvers.newton import Newton as Newton
from probsoftmax.solvers.newton_cg import NewtonCG as NewtonCG
from probsoftmax.solvers.solver import Solution as Solution
from probsoftmax.solvers.solver import Solver as Solver
from probsoftmax.solvers.status import Status as Status
