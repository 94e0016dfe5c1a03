"""What other packages do with the same questions: the table of the README, measured.

    pip install -e '.[sklearn]' statsmodels jaxopt nemos
    python benchmarks/packages.py

A package that is not installed is left out. Every cell is an attempt, not a statement from memory: 'no' is an error or
a warning that says so. Settings are each package's own, in float64, except where the question is about one.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps

jax.config.update("jax_enable_x64", True)

PACKAGES = ("probsoftmax", "scikit-learn", "statsmodels", "jaxopt", "nemos")
iris: Any = load_iris()
x, y = iris.data, iris.target
x = (x - x.mean(0)) / x.std(0)
n, (d, k) = len(y), (x.shape[1], 3)
soft = 0.9 * np.eye(k)[y] + 0.1 / k
weights = np.linspace(0.5, 1.5, n)
images: Any = load_digits()
digits, digit = images.data / 16, images.target
TAU = 0.01


def our_map(tau: Any) -> jax.Array:
    return ps.fit_map(ps.make_data(x, y), ps.GaussianPrior(tau)).params.weights


def jaxopt_map(tau: Any, features: Any = x, labels: Any = y) -> Any:
    jaxopt = import_module("jaxopt")
    objective = jaxopt.objective.l2_multiclass_logreg_with_intercept
    classes, width = len(np.unique(labels)), features.shape[1]
    start = jnp.zeros((width, classes)), jnp.zeros(classes)
    # Its objective is a mean.
    return jaxopt.LBFGS(objective).run(start, l2reg=tau / len(labels), data=(features, labels))


def nemos_map(tau: Any, features: Any = x, labels: Any = y) -> Any:
    glm = import_module("nemos").glm
    model = glm.ClassifierGLM(
        n_classes=len(np.unique(y if labels is soft else labels)),
        regularizer="Ridge",
        regularizer_strength=tau / len(labels),
    )
    return model.fit(features, labels)


def statsmodels_mle(labels: Any = y, **arguments: Any) -> Any:
    sm = import_module("statsmodels.api")
    return sm.MNLogit(labels, sm.add_constant(x), **arguments).fit(disp=0)


def separated() -> dict[str, Callable[[], Any]]:
    """Iris without a penalty, where no maximum of the likelihood exists: what is one told?"""

    def sklearn() -> str:
        norm = np.linalg.norm(LogisticRegression(C=np.inf, max_iter=10_000).fit(x, y).coef_)
        return f"nothing, |W| = {norm:.0f}"

    def nemos() -> str:
        glm = import_module("nemos").glm
        model = glm.ClassifierGLM(n_classes=k, regularizer="UnRegularized").fit(x, y)
        return f"converged = {bool(model.solver_state_.stats.converged)}"

    return {
        "probsoftmax": lambda: ps.Status(int(ps.fit_mle(ps.make_data(x, y)).status)).name,
        "scikit-learn": sklearn,
        "statsmodels": lambda: f"converged = {statsmodels_mle().mle_retvals['converged']}",
        "jaxopt": lambda: f"error = {float(jaxopt_map(0.0).state.error):.0e}",
        "nemos": nemos,
    }


def coefficients() -> dict[str, Callable[[], Any]]:
    """Digits at precision 0.01 with default settings: relative error of the coefficients."""
    exact = LogisticRegression(C=1 / TAU, solver="newton-cholesky", tol=1e-12, max_iter=500)
    truth = exact.fit(digits, digit).coef_.T

    def error(found: Any) -> str:
        return f"{np.linalg.norm(found - truth) / np.linalg.norm(truth):.0e}"

    data = ps.make_data(digits, digit)
    return {
        "probsoftmax": lambda: error(ps.fit_map(data, ps.GaussianPrior(TAU)).params.weights),
        "scikit-learn": lambda: error(
            LogisticRegression(C=1 / TAU, max_iter=1000).fit(digits, digit).coef_.T
        ),
        "jaxopt": lambda: error(jaxopt_map(TAU, digits, digit).params[0]),
        "nemos": lambda: error(np.asarray(nemos_map(TAU, digits, digit).coef_)),
    }


def bounds() -> dict[str, Callable[[], Any]]:
    """What the result says about its distance from the optimum."""
    return {
        "probsoftmax": lambda: (
            f"gap <= {ps.fit_map(ps.make_data(x, y), ps.GaussianPrior(TAU)).gap:.0e} nats"
        ),
        "scikit-learn": lambda: f"n_iter_ = {LogisticRegression(C=1 / TAU).fit(x, y).n_iter_[0]}",
        "statsmodels": lambda: "converged or not",
        "jaxopt": lambda: f"gradient norm {float(jaxopt_map(TAU).state.error):.0e}",
        "nemos": lambda: f"converged = {bool(nemos_map(TAU).solver_state_.stats.converged)}",
    }


def example_weights() -> dict[str, Callable[[], Any]]:
    """Weights of the examples."""

    def jaxopt() -> str:
        objective = import_module("jaxopt").objective.l2_multiclass_logreg_with_intercept
        return (
            "write the objective"
            if "weights" not in inspect.signature(objective).parameters
            else "yes"
        )

    def nemos() -> str:
        fit = import_module("nemos").glm.ClassifierGLM.fit
        return (
            "yes" if any("weight" in name for name in inspect.signature(fit).parameters) else "no"
        )

    return {
        "probsoftmax": lambda: tried(
            lambda: ps.fit_mle(ps.make_data(x, y, weights=weights)).params
        ),
        "scikit-learn": lambda: tried(LogisticRegression().fit, x, y, sample_weight=weights),
        "statsmodels": lambda: tried(lambda: statsmodels_mle(freq_weights=weights)),
        "jaxopt": jaxopt,
        "nemos": nemos,
    }


def soft_labels() -> dict[str, Callable[[], Any]]:
    """Labels that are probabilities."""
    return {
        "probsoftmax": lambda: tried(lambda: ps.fit_mle(ps.make_data(x, soft)).params),
        "scikit-learn": lambda: tried(LogisticRegression().fit, x, soft),
        "statsmodels": lambda: tried(lambda: statsmodels_mle(soft)),
        "jaxopt": lambda: tried(jaxopt_map, TAU, x, soft),
        "nemos": lambda: tried(nemos_map, TAU, x, soft),
    }


def priors() -> dict[str, Callable[[], Any]]:
    """A prior precision of its own for every coefficient."""
    each: Any = np.linspace(0.1, 1, d * k).reshape(d, k)
    return {
        "probsoftmax": lambda: tried(our_map, each),
        "scikit-learn": lambda: tried(LogisticRegression(C=each).fit, x, y),
        "statsmodels": lambda: "no L2 penalty",
        "jaxopt": lambda: tried(jaxopt_map, each),
        "nemos": lambda: tried(nemos_map, each),
    }


def sweeps() -> dict[str, Callable[[], Any]]:
    """jax.vmap over prior precisions."""
    tau = jnp.array([0.1, 1.0])
    return {
        "probsoftmax": lambda: tried(jax.vmap(our_map), tau),
        "scikit-learn": lambda: tried(
            jax.vmap(lambda t: LogisticRegression(C=1 / t).fit(x, y).coef_), tau
        ),
        "statsmodels": lambda: "no",
        "jaxopt": lambda: tried(jax.vmap(lambda t: jaxopt_map(t).params), tau),
        "nemos": lambda: tried(jax.vmap(lambda t: nemos_map(t).coef_), tau),
    }


def gradients() -> dict[str, Callable[[], Any]]:
    """Derivative of the coefficients in the prior precision."""
    return {
        "probsoftmax": lambda: tried(jax.jacobian(our_map), 1.0),
        "scikit-learn": lambda: "no",
        "statsmodels": lambda: "no",
        "jaxopt": lambda: tried(jax.jacobian(lambda t: jaxopt_map(t).params), 1.0),
        "nemos": lambda: tried(jax.jacobian(lambda t: nemos_map(t).coef_), 1.0),
    }


def log_probabilities() -> dict[str, Callable[[], Any]]:
    """Log-probability of an unlikely class, features times a thousand: is it finite?"""
    far = 1000 * x
    fit = ps.fit_map(ps.make_data(x, y), ps.GaussianPrior(TAU))

    def nemos() -> Any:
        return nemos_map(TAU).predict_proba(far, return_type="log-proba")

    def statsmodels() -> Any:
        sm = import_module("statsmodels.api")
        model = sm.MNLogit(soft, sm.add_constant(x))
        return np.log(model.predict(model.fit(disp=0).params, sm.add_constant(far)))

    finite = {
        "probsoftmax": lambda: ps.predict_log_proba(fit.params, far),
        "scikit-learn": lambda: LogisticRegression(C=1 / TAU).fit(x, y).predict_log_proba(far),
        "statsmodels": statsmodels,
        "nemos": nemos,
    }
    return {name: lambda f=f: worst(f()) for name, f in finite.items()}


def worst(values: Any) -> str:
    values = np.asarray(values)
    return "NaN" if np.isnan(values).any() else "finite" if np.isfinite(values).all() else "-inf"


def tried(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """Yes, or no if an error or a warning about the arguments comes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="unknown kwargs")
        try:
            result = function(*arguments, **named)
        except Exception as error:
            return f"no ({type(error).__name__})"
    leaves = [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, (jax.Array, np.ndarray))]
    return "yes" if all(np.isfinite(leaf).all() for leaf in leaves) else "no (NaN)"


QUESTIONS = (
    separated,
    coefficients,
    bounds,
    example_weights,
    soft_labels,
    priors,
    sweeps,
    gradients,
    log_probabilities,
)


def main() -> None:
    """Print one line a question and a package."""
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            print(package, ps.__version__ if package == "probsoftmax" else version(package))
    for question in QUESTIONS:
        print(f"\n{question.__doc__}")
        for package, answer in question().items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    print(f"  {package:<14}{answer()}")
                except ModuleNotFoundError:
                    print(f"  {package:<14}not installed")


if __name__ == "__main__":
    main()
