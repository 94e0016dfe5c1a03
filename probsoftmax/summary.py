"""The summary of a fit: the numbers that statisticians ask for, and the table they know."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probsoftmax.shapes import Float

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Estimates against a reference class, how sure they are, and how well the model fits. NumPy arrays, float64.

    Of a maximum a posteriori fit the standard errors are standard deviations of its (Laplace) posterior, and what
    only a maximum of the likelihood has raises ``ValueError``. ``print`` shows a table.
    """

    estimates: Float[np.ndarray, "d+1 k-1"]
    """Coefficients of every class but the reference, less those of the reference; the bias is the last row."""
    covariance: Float[np.ndarray, "d+1 k-1 d+1 k-1"]
    """Of the estimates."""
    log_likelihood: float
    """At the estimates, in nats."""
    null_log_likelihood: float
    """Of the model without features: each class as probable as it is frequent."""
    total_weight: float
    """Sum of the weights: the number of examples, if weights are frequencies."""
    features: tuple[Hashable, ...]
    """Names of the rows; the last is ``"bias"``."""
    classes: tuple[Hashable, ...]
    """Names of the columns: the classes without the reference."""
    reference: Hashable
    """Name of the reference class."""
    level: float
    """Of the intervals."""
    effective_parameters: float
    """How many of the parameters the data determine: all of them without a prior, with one the trace of the posterior
    covariance times the information."""
    has_prior: bool
    """Whether these are the moments of a posterior."""

    @property
    def standard_errors(self) -> Float[np.ndarray, "d+1 k-1"]:
        """Roots of the variances: standard errors, or standard deviations of the posterior."""
        return np.sqrt(np.einsum("fjfj->fj", self.covariance))

    @property
    def z(self) -> Float[np.ndarray, "d+1 k-1"]:
        """Estimates in standard errors."""
        self._only_for_a_maximum_of_the_likelihood("z statistics")
        return self.estimates / self.standard_errors

    @property
    def p_values(self) -> Float[np.ndarray, "d+1 k-1"]:
        """Of Wald's test that a coefficient is 0, two-sided: P(|Z| > |z|) for a standard normal Z."""
        import scipy.special  # slow to import, and only these lines need it

        self._only_for_a_maximum_of_the_likelihood("p-values")
        return scipy.special.erfc(np.abs(self.z) / math.sqrt(2))

    @property
    def intervals(self) -> Float[np.ndarray, "d+1 k-1 2"]:
        """Wald's confidence intervals, or credible intervals of the posterior; lower and upper ends."""
        import scipy.special

        reach = scipy.special.ndtri((1 + self.level) / 2) * self.standard_errors
        return np.stack([self.estimates - reach, self.estimates + reach], axis=-1)

    @property
    def num_parameters(self) -> int:
        """(d + 1)(k - 1)."""
        return self.estimates.size

    @property
    def degrees_of_freedom(self) -> int:
        """d (k - 1): what the model has more than the one without features."""
        return self.estimates.size - len(self.classes)

    @property
    def likelihood_ratio(self) -> float:
        """Twice the log-likelihood above that of the model without features: chi-square if no feature matters."""
        self._only_for_a_maximum_of_the_likelihood("a likelihood-ratio test")
        return 2 * (self.log_likelihood - self.null_log_likelihood)

    @property
    def likelihood_ratio_p_value(self) -> float:
        """Chance of so large a ratio if no feature matters."""
        return chi_square_tail(self.likelihood_ratio, self.degrees_of_freedom)

    @property
    def mcfadden_r2(self) -> float:
        """1 - log-likelihood / null log-likelihood."""
        self._only_for_a_maximum_of_the_likelihood("McFadden's R²")
        return 1 - self.log_likelihood / self.null_log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 parameters - 2 log-likelihood."""
        self._only_for_a_maximum_of_the_likelihood("AIC")
        return 2 * self.num_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, parameters log(total weight) - 2 log-likelihood."""
        self._only_for_a_maximum_of_the_likelihood("BIC")
        return self.num_parameters * math.log(self.total_weight) - 2 * self.log_likelihood

    def to_pandas(self) -> "pd.DataFrame":
        """One row for each class and feature, the classes as blocks.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        index = pd.MultiIndex.from_product(
            [list(self.classes), list(self.features)], names=["class", "feature"]
        )
        columns = {name: values.T.reshape(-1) for name, values in self._columns().items()}
        return pd.DataFrame(columns, index=index)

    def __str__(self) -> str:
        lines = [*self._head(), ""]
        columns = self._columns()
        blocks = [f"class {name}" for name in self.classes]
        width = max(12, *(len(str(name)) for name in (*self.features, *blocks)))
        titles = "".join(f"{name:>14}" for name in columns)
        for j, name in enumerate(blocks):
            lines += [f"{name:<{width}}{titles}", "-" * (width + len(titles))]
            for f, feature in enumerate(self.features):
                cells = "".join(_cell(title, values[f, j]) for title, values in columns.items())
                lines.append(f"{feature!s:<{width}}{cells}")
            lines.append("")
        return "\n".join([*lines, *self._foot()])

    __repr__ = __str__

    def _columns(self) -> dict[str, np.ndarray]:
        tail = (1 - self.level) / 2
        ends = {f"{tail:.4g}": self.intervals[..., 0], f"{1 - tail:.4g}": self.intervals[..., 1]}
        if self.has_prior:
            return {"estimate": self.estimates, "posterior sd": self.standard_errors} | ends
        tests = {"std. error": self.standard_errors, "z": self.z, "P>|z|": self.p_values}
        return {"estimate": self.estimates} | tests | ends

    def _head(self) -> list[str]:
        counts = {
            "classes": f"{len(self.classes) + 1}",
            "total weight": f"{self.total_weight:.10g}",
        }
        fits = {
            "parameters": f"{self.num_parameters}",
            "log-likelihood": f"{self.log_likelihood:.4f}",
        }
        nulls = {"reference": f"{self.reference}", "null": f"{self.null_log_likelihood:.4f}"}
        rows = [counts, fits, nulls]
        if self.has_prior:
            rows.append({"effective": f"{self.effective_parameters:.4f}"})
        else:
            df, ratio = self.degrees_of_freedom, self.likelihood_ratio
            rows.append(
                {"McFadden's R²": f"{self.mcfadden_r2:.4f}", f"LR chi²({df})": f"{ratio:.4f}"}
            )
            p = f"{self.likelihood_ratio_p_value:.4g}"
            rows.append({"AIC": f"{self.aic:.4f}", "P>chi²": p})
            rows.append({"BIC": f"{self.bic:.4f}"})
        title = "maximum a posteriori" if self.has_prior else "maximum likelihood"
        cells = (
            "".join(f"{name:<16}{value:>16}      " for name, value in row.items()) for row in rows
        )
        return [f"Linear softmax classifier, {title}", *(line.rstrip() for line in cells)]

    def _foot(self) -> list[str]:
        if not self.has_prior:
            return [f"Coefficients against those of class {self.reference}."]
        return [f"Coefficients against those of class {self.reference}; moments of the posterior."]

    def _only_for_a_maximum_of_the_likelihood(self, what: str) -> None:
        if self.has_prior:
            raise ValueError(
                f"a maximum a posteriori fit has no {what}: these count what repeated samples would do to an unbiased "
                "estimate, and a prior pulls this one towards its mean. It has a posterior: read its standard "
                "deviations and intervals, or summarize the fit of fit_mle"
            )


def chi_square_tail(statistic: float, degrees_of_freedom: float) -> float:
    """P(X > statistic) for a chi-square X, to the last digits however small it is."""
    import scipy.special

    return float(scipy.special.chdtrc(degrees_of_freedom, max(statistic, 0.0)))


def _cell(title: str, value: float) -> str:
    return f"{value:>14.3f}" if title in ("z", "P>|z|") else f"{value:>14.6g}"
