"""Make a data set ready to train on from any folder of labelled images: `python prepare.py FOLDER`."""

import sys

from utils.cli import parse_options, run_script


def main() -> None:
    """Parse the command line and prepare, or check, the data set."""
    from utils.options import PrepareOptions

    options, given = parse_options(PrepareOptions, None, description=__doc__)
    from utils.preparation.run import run_preparation

    sys.exit(run_preparation(options, given))


if __name__ == "__main__":
    run_script(main)
