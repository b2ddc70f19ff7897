import copy

import pytest

from utils.errors import MAX_TEXT, ConfigError, DetectorError, RunStopped, one_line


@pytest.mark.parametrize(
    "error",
    [ConfigError("--name", "is taken", fix="choose another"), RunStopped("train.py", "x", fix="y", exit_code=143)],
)
def test_errors_leave_a_process_with_all_fields(error: DetectorError) -> None:
    rebuilt = copy.copy(error)  # by __reduce__, as a loader worker passes it on
    assert type(rebuilt) is type(error) and str(rebuilt) == str(error)
    assert vars(rebuilt) == vars(error) and rebuilt.exit_code == error.exit_code


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = ConfigError("a\nb.yaml", "has the name \x1b[2J\u2028 é\xa0自\udcff", fix="rename\r\n\x85it")
    assert str(error) == "a\\nb.yaml: has the name \\x1b[2J\\u2028 é\xa0自\udcff. Fix: rename\\r\\n\\x85it."
    assert (error.where, error.fix) == ("a\\nb.yaml", "rename\\r\\n\\x85it")


def test_long_values_lose_their_middle_and_file_names_stay() -> None:
    error = ConfigError("x" * 4000 + "/data.yaml", "y" * 4000 + " (got 1)", fix="z" * 4000)
    assert [len(error.where), len(error.what), len(error.fix)] == [MAX_TEXT + 3] * 3
    assert error.where.startswith("xxx") and error.where.endswith("x/data.yaml") and error.what.endswith("y (got 1)")
    assert one_line("a" * MAX_TEXT) == "a" * MAX_TEXT
