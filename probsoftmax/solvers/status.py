"""How a fit ended."""

from enum import IntEnum


class Status(IntEnum):
    """How a fit ended. Only ``CONVERGED`` says that the optimum was reached."""

    CONVERGED = 0
    """The certificate (or, where the prior is flat, the exact Newton decrement) is below the tolerance."""
    MAX_STEPS = 1
    """The steps ran out first; ``gap`` says how far it got. Allow more steps, or take ``Newton`` or ``LBFGS``."""
    PRECISION_FLOOR = 2
    """The dtype cannot do better; ``gap`` says how good it is. Float64 can: ``jax.enable_x64(True)``."""
    DIVERGED = 3
    """A value was not finite; the last finite iterate is returned. Look at the data, or lower a learning rate."""
    SEPARATED = 4
    """No finite optimum: a direction on which the prior is flat fits ever better. Give it a prior (``fit_map``)."""
