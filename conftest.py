"""How JAX is set for everything pytest runs here: the tests, and the examples in docstrings.

Read before any test module is imported, so that nothing has started a device yet. The fixtures are in
tests/conftest.py.
"""

import os
from importlib.metadata import version

# One thread a process for linear algebra, said before NumPy is imported: there is a process a core, and threads that
# wait for one another spin. Fits of scikit-learn took up to fifty times their time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest

if version("jaxlib").startswith("0.10."):
    # The tests compile for most of their time, and the newer of this jaxlib's two code generators for CPUs, which is
    # its default, takes half as long again. `XLA_FLAGS= make test` runs the default; later versions have no other.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# Unoptimised programs are compiled in half the time. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` optimises them all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Four devices on one CPU: rows can be sharded in the same run, and it costs no time.
jax.config.update("jax_num_cpu_devices", 4)


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs between runs, in pytest's own cache (`pytest --cache-clear` empties it).

    Set in the environment too, so that the Python processes which tests start share it.
    """
    cache = getattr(config, "cache", None)  # there is none under `-p no:cacheprovider`
    if cache is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    settings = {
        "jax_compilation_cache_dir": str(cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,  # a single operation is compiled too
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True, scope="module")
def _compiler(request: pytest.FixtureRequest):
    """Last digits are tested as users get them, optimised; what is built on them is compiled in a hurry."""
    last_digits = request.path.parent.name in ("numerics", "peers")
    hurry = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and not last_digits
    if jax.config.read("jax_disable_most_optimizations") != hurry:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", hurry)


@pytest.fixture(autouse=True)
def _docstrings_run_as_read(request: pytest.FixtureRequest):
    """An example in a docstring runs in float32, as it will for the reader who types it."""
    if isinstance(request.node, pytest.DoctestItem):
        with jax.enable_x64(False):
            yield
    else:
        yield
