"""How a test runs prepare.py."""

import pytest

from utils.cli import parse_options
from utils.options import PrepareOptions
from utils.preparation.run import run_preparation


@pytest.fixture(scope="session")
def prepare():
    """Run prepare.py's function with the arguments of a command line."""

    def run(*argv):
        options, given = parse_options(PrepareOptions, [str(arg) for arg in argv], description="")
        assert run_preparation(options, given) == 0

    return run
