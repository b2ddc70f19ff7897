"""Evaluate a checkpoint: `python val.py --weights runs/train/exp/weights/best.pt --data shapes.yaml`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and validate."""
    from utils.options import ValOptions
    from utils.options.command_line import read_options

    options, _ = read_options(ValOptions, description=__doc__)
    from utils.validation.run import run_evaluation

    run_evaluation(options)


if __name__ == "__main__":
    run_script(main)
