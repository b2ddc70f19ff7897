"""Literals in text: parsed without evaluation and without a word of Python's."""

import warnings

import pytest

from utils.literals import NOT_A_LITERAL, parse_literal


@pytest.mark.parametrize("value", [None, True, 1, -2.5, "a", [1, (2, 3)], {"a": {0: "x"}}])
def test_literals_are_restored(value: object) -> None:
    assert parse_literal(f" {value!r}\t") == value


WRONG = ["", "a", "f()", "1 +", "1is 2", "\0", "{[]: 1}", "(" * 500, "-" * 100_000 + "1", "\udcff"]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_anything_else_is_an_error_that_callers_know(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NOT_A_LITERAL):
            parse_literal(text)


def test_python_does_not_warn_about_escapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_literal(r"'\d'") == r"\d"
