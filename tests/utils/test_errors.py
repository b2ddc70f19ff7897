import pickle

import pytest

from utils.errors import ConfigError, DetectorError, RunStopped


@pytest.mark.parametrize(
    "error",
    [ConfigError("--name", "is taken", fix="choose another"), RunStopped("train.py", "x", fix="y", exit_code=143)],
)
def test_errors_leave_a_process_with_all_fields(error: DetectorError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert vars(copy) == vars(error) and copy.exit_code == error.exit_code
