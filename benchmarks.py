"""Measure what AKConv costs against plain convolutions: `python benchmarks.py --device cpu`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and measure."""
    from utils.options import BenchmarkOptions
    from utils.options.command_line import read_options

    options, _ = read_options(BenchmarkOptions, description=__doc__)
    from utils.benchmarks.akconv import run_benchmark

    run_benchmark(options)


if __name__ == "__main__":
    run_script(main)
