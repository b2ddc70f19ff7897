"""Widths of text in a terminal."""

import pytest

from utils.document import Table, table_to_markdown
from utils.text_table import clip, display_width, left, right


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("ring", 4), ("圆环", 4), ("e\u0301", 1), ("A类", 3), ("ｱ", 1), ("😀", 2), ("한", 2)]
)
def test_columns_of_a_text(text: str, width: int) -> None:
    assert display_width(text) == width
    assert display_width(left(text, 9)) == display_width(right(text, 9)) == 9
    assert left(text, 0) == right(text, 0) == text


def test_a_text_is_clipped_between_characters() -> None:
    assert (clip("圆环圆环", 5), clip("圆环", 4), clip("ring", 2), clip("圆", 1)) == ("圆环", "圆环", "ri", "")


def test_rows_with_chinese_names_align() -> None:
    lines = table_to_markdown(Table(header=["Model", "结果"], rows=[["圆环", "0.5"], ["ring", "0.25"]])).splitlines()
    assert len({display_width(line) for line in lines}) == 1
