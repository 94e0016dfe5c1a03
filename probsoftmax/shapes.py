"""The shapes that stand in annotations: jaxtyping's to readers and to type checkers, nothing when they are run.

jaxtyping makes a class of every annotation, and imports asyncio and unittest: together they take a tenth of what JAX
itself takes to be imported.
"""

from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    from jaxtyping import Array as Array
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
    from jaxtyping import PRNGKeyArray as PRNGKeyArray
    from jaxtyping import PyTree as PyTree
else:
    Array = PRNGKeyArray = jax.Array
    PyTree = Any

    class Float:
        """``Float[Array, "n d"]`` is ``Array``."""

        def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
            """The array, without its shape."""
            return array_and_shape[0]

    Bool = Int = Float
