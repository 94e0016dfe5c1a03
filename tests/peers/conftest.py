"""What the tests of other packages expect to find around them."""

from collections.abc import Callable
from types import ModuleType

import jax
import numpy as np
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Know what SciPy's tests carry: marks that speak of array libraries."""
    marks = ("skip_xp_backends", "xfail_xp_backends", "array_api_backends", "uses_xp_capabilities")
    for mark in marks:
        config.addinivalue_line("markers", f"{mark}: of SciPy")


@pytest.fixture
def xp() -> ModuleType:
    """The array library: SciPy's tests run once for each."""
    return np


@pytest.fixture
def devices() -> list[str]:
    """The devices of this array library."""
    return ["cpu"]


@pytest.fixture(autouse=True)
def _as_their_authors_run_them():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, dict[str, object]], None]:
    """Put our functions in the place of theirs."""

    def replace(owner, functions):
        for name, function in functions.items():
            monkeypatch.setattr(owner, name, function)

    return replace
