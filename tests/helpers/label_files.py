"""Generated label files, for the tests of everything that reads them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

REPEATABLE = settings(max_examples=200, deadline=None, derandomize=True, database=None)
CLASS_FIELDS = ["0", "1", "2", "3", "79", "0.5", "-1", "nan", "inf", "1e0", "2.0", "+1", "1_0", "x", "1e300"]
COORDINATES = [
    "0",
    "0.0",
    "1",
    "1.0",
    ".5",
    "5e-1",
    "1e-3",
    "0.25",
    "0.333333",
    "1.",
    "-0.1",
    "1.32",
    "nan",
    "-inf",
    "a,b",
]


@st.composite
def label_files(draw):
    """Files with mostly valid rows: boxes, polygons, wrong numbers of columns; all line endings."""
    good = st.integers(0, 10**6).map(lambda value: f"{value / 10**6:.{1 + value % 7}g}")
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        count = draw(st.sampled_from([4, 4, 4, 4, 6, 8, 10, 0, 1, 3, 5, 7]))
        label = draw(st.one_of(st.sampled_from(["0", "1", "2"]), st.sampled_from(CLASS_FIELDS)))
        coordinates = draw(
            st.lists(st.one_of(good, good, st.sampled_from(COORDINATES)), min_size=count, max_size=count)
        )
        separator = draw(st.sampled_from([" ", "  ", "\t", " \t "]))
        lines.append(
            draw(st.sampled_from(["", "", " "]))
            + separator.join([label, *coordinates])
            + draw(st.sampled_from(["", " "]))
        )
    if lines and draw(st.booleans()):
        lines.append(lines[0])
    ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
    text = "".join(line + draw(ends) for line in lines)
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + text.encode()


@st.composite
def damaged_label_files(draw):
    """Label files with a few bytes changed, inserted or removed."""
    data = bytearray(draw(label_files()) or b"0 .5 .5 .2 .2\n")
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        value = draw(
            st.one_of(st.sampled_from(b"0123456789.-+eE_ \t\r\n\x0b\x0c\x00\xff\xef\xbb,"), st.integers(0, 255))
        )
        data[position : position + draw(st.integers(0, 1))] = bytes([value] * draw(st.integers(0, 1)))
    return bytes(data)
