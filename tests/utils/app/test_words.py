"""The page has every text in both languages, with the same values in its braces."""

import re
import string

import pytest

from utils.app.words import WORDS, words_in


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_have_the_same_braces(key: str) -> None:
    english, chinese = ([field for _, field, _, _ in string.Formatter().parse(text)] for text in WORDS[key])
    count = len([field for field in english if field is not None])
    assert count == len([field for field in chinese if field is not None])
    numbered = [field for field in chinese if field and field.isdigit()]
    assert not numbered or sorted(numbered) == [str(index) for index in range(count)]
    if key not in ("language", "other language"):
        assert re.search(r"[\u4e00-\u9fff]", words_in("zh")(key))


def test_columns_have_the_same_number() -> None:
    for key in ("columns", "box columns", "compare columns"):
        english, chinese = WORDS[key]
        assert len(english.split(",")) == len(chinese.split(","))
