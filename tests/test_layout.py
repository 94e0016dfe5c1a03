"""The folder is the equation: which module may import which, how long a file may be, what an import may do."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "probsoftmax"

# From the top floor to the ground. A module imports only from the floors above its own.
FLOORS = [
    "shapes",
    "checks",
    "partition",
    "exact_sum",
    "jacobian",
    "numerics",
    "sigmoid",
    "information",
    "class_index",
    "residual",
    "losses",
    "features",
    "labels",
    "data",
    "linear",
    "likelihood",
    "prior",
    "objective",
    "curvature",
    "solvers",
    "fit",
    "path",
    "leave_one_out",
    "cores",
    "validation",
    "directions",
    "face",
    "separation",
    "posterior",
    "predictive",
    "evidence",
    "contrasts",
    "summary",
    "inference",
    "calibration",
    "brier",
    "temperature",
    "sharding",
    "streaming",
    "files",
    "estimator",
    "plots",
    "compare",
    "cli",
    "__main__",
]
# The public face shows every floor and no floor looks back at it, but for those that it does not show:
# they stand outside and use the package as anybody would.
FACE = "probsoftmax"
OUTSIDE = ["estimator", "plots", "compare", "cli", "__main__"]


def module_name(path: Path) -> str:
    """`probsoftmax.solvers.newton` of probsoftmax/solvers/newton.py; a folder is named like its `__init__`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def internal_imports(module: str) -> set[str]:
    """The modules of this package that a module imports, at its top or inside a function."""
    path = MODULES[module]
    folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), folder)
            # `from source import name`: the name is a module of its own, or something that the source defines.
            candidates = {f"{source}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else source for name in candidates}
    return names & MODULES.keys()


def floor(module: str) -> str:
    """The row of the list a module stands in: its file, or the folder of its file."""
    return module.removeprefix("probsoftmax.").split(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name != FACE])
def test_imports_only_from_the_floors_above(module):
    own = floor(module)
    assert own in FLOORS, f"{module} has no floor: is it a new term of the equation?"
    allowed = {*FLOORS[: FLOORS.index(own)], *([FACE] if own in OUTSIDE else [])}
    if MODULES[module].parent != PACKAGE:  # the files of one folder may import one another
        allowed.add(own)
    imported = internal_imports(module)
    assert {floor(name) for name in imported} <= allowed, f"{module} imports {sorted(imported)}"


def test_the_face_shows_none_of_the_modules_that_use_it():
    assert not {floor(name) for name in internal_imports(FACE)} & set(OUTSIDE)


def test_no_two_modules_import_each_other():
    TopologicalSorter({module: internal_imports(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_one_idea_of_at_most_300_lines(module):
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= 300


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


IMPORT_AND_COMPARE = """
import json, logging, sys, warnings
import chex, jax, numpy, optax

def handlers():
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {logger.name: [repr(handler) for handler in logger.handlers] for logger in loggers if logger.handlers}

modules, config, logs = set(sys.modules), dict(jax.config.values), handlers()
warnings.simplefilter("error")
import probsoftmax
# JAX has no public question for this one, and any public call that would tell starts a device.
from jax._src.xla_bridge import backends_are_initialized
print(json.dumps({
    "settings of JAX changed": sorted(name for name, value in jax.config.values.items() if value != config[name]),
    "log handlers added": handlers() != logs,
    "devices started": backends_are_initialized(),
    "optional or slow packages": sorted(
        {"jaxtyping", "matplotlib", "pandas", "scipy", "sklearn", "tqdm"} & (set(sys.modules) - modules)
    ),
}))
"""


def test_an_import_does_nothing_but_define_names():
    command = [sys.executable, "-c", IMPORT_AND_COMPARE]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout) == {
        "settings of JAX changed": [],
        "log handlers added": False,
        "devices started": False,
        "optional or slow packages": [],
    }
