"""The machine and the versions behind the numbers."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

import probsoftmax as ps

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn", "nemos")


def description() -> str:
    """Markdown: what computes, and what runs on it."""
    blas = {f"{pool['internal_api']} {pool['version']}" for pool in threadpool_info()}
    return "\n".join(
        [
            f"- {_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB, {platform.system()};"
            f" load when it began: {os.getloadavg()[0]:.1f}",
            f"- Python {platform.python_version()}, {', '.join(_versions())}",
            f"- {', '.join(sorted(blas))}",
        ]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _versions() -> list[str]:
    found = [f"probsoftmax {ps.__version__}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return found
