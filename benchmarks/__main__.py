"""`python -m benchmarks`: every timing, one after the other."""

from benchmarks import cost, cross_validation, predictions, sweeps

BENCHMARKS = (cost, sweeps, cross_validation, predictions)


def main() -> None:
    """Run them all."""
    for benchmark in BENCHMARKS:
        print(f"{(benchmark.__doc__ or '').splitlines()[0]}\n")
        benchmark.main()
        print()


if __name__ == "__main__":
    main()
