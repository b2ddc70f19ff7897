"""Make a data set ready to train on from any folder of labelled images: `python prepare.py FOLDER`."""

import sys

from utils.cli import run_script


def main() -> None:
    """Parse the command line and prepare, or check, the data set."""
    from utils.options import PrepareOptions
    from utils.options.command_line import read_options

    options, given = read_options(PrepareOptions, description=__doc__)
    from utils.preparation.run import run_preparation

    sys.exit(run_preparation(options, given))


if __name__ == "__main__":
    run_script(main)
