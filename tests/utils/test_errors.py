import copy

import pytest

from utils.errors import ConfigError, DetectorError, RunStopped


@pytest.mark.parametrize(
    "error",
    [ConfigError("--name", "is taken", fix="choose another"), RunStopped("train.py", "x", fix="y", exit_code=143)],
)
def test_errors_leave_a_process_with_all_fields(error: DetectorError) -> None:
    rebuilt = copy.copy(error)  # by __reduce__, as a loader worker passes it on
    assert type(rebuilt) is type(error) and str(rebuilt) == str(error)
    assert vars(rebuilt) == vars(error) and rebuilt.exit_code == error.exit_code
