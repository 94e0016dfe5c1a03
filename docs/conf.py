"""Sphinx: the reference from the docstrings, the notebooks as they were executed."""

import shutil
from pathlib import Path

import probsoftmax as ps

project = "probsoftmax"
author = "The probsoftmax authors"
version = release = ps.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
autodoc_member_order = "bysource"  # a module is written to be read from the top
autodoc_typehints = "signature"

html_theme = "sphinx_book_theme"
html_title = "probsoftmax"

# Sphinx reads only below its own folder; the notebooks are committed with their results.
HERE = Path(__file__).parent
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    ignore=shutil.ignore_patterns("*.py", ".*"),
    dirs_exist_ok=True,
)
nb_execution_mode = "off"
exclude_patterns = ["_build"]
