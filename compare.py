"""Compare models: `python compare.py --cfg yolov5n.yaml yolov5n-AKConv.yaml --data shapes.yaml --epochs 100`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and compare."""
    from utils.options import CompareOptions
    from utils.options.command_line import read_options

    options, given = read_options(CompareOptions, description=__doc__)
    from utils.comparison.run import run_comparison

    run_comparison(options, given)


if __name__ == "__main__":
    run_script(main)
