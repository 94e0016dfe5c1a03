"""Memory of a prediction with uncertainty: 10,000 rows, 1000 classes, 512 features, a Kronecker posterior, float32.

The peak is that of the whole process: JAX, the data, the fit, the posterior and the prediction. The full posterior
would be a matrix of 513,000 x 513,000 numbers, 1 TB.
"""

import resource
from time import perf_counter

import jax
import numpy as np

import probsoftmax as ps

N, D, K = 10_000, 512, 1_000
PRECISION = 100.0
LIMIT = 2.0


def peak() -> float:
    """The largest memory this process ever had, in GiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def data_of(seed: int) -> ps.Data:
    """Classes at random places, one row each of about ten at random."""
    centres = np.random.default_rng(0).normal(size=(K, D)).astype(np.float32)
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    x = 0.2 * centres[labels] + rng.normal(size=(N, D)).astype(np.float32)
    return ps.make_data(x, labels, num_classes=K)


def main() -> None:
    """Each step, its time and the peak so far."""
    training, others = data_of(1), data_of(2)
    prior = ps.GaussianPrior(PRECISION)

    start = perf_counter()
    fit = jax.block_until_ready(ps.fit_map(training, prior))
    print(f"fit_map            {perf_counter() - start:6.1f} s  peak {peak():.2f} GiB")
    start = perf_counter()
    posterior = jax.block_until_ready(ps.laplace_kronecker(fit.params, training, prior))
    print(f"laplace_kronecker  {perf_counter() - start:6.1f} s  peak {peak():.2f} GiB")
    start = perf_counter()
    p = jax.block_until_ready(ps.predictive_probit(posterior, others.features))
    seconds, highest = perf_counter() - start, peak()
    print(f"predictive_probit  {seconds:6.1f} s  peak {highest:.2f} GiB  (limit {LIMIT:.0f} GiB)")
    rows = np.arange(N)
    plug_in = ps.predict_log_proba(fit.params, others.features)[rows, others.labels].mean()
    averaged = np.log(np.asarray(p)[rows, others.labels]).mean()
    print(f"log loss of other rows: plug-in {-plug_in:.4f}, averaged {-averaged:.4f}")


if __name__ == "__main__":
    main()
