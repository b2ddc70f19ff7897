import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.label_files import REPEATABLE, damaged_label_files, label_files
from tests.helpers.label_reference import assert_equals_reference
from utils.datasets.labels import COLUMNS, label_path, parse_labels, read_label_content


def rows_of(text, num_classes=3):
    data = text if isinstance(text, bytes) else text.encode()
    return parse_labels(data, num_classes=num_classes)


@pytest.mark.slow
@REPEATABLE
@given(label_files())
def test_generated_files_parse_as_by_the_reference_parser(data):
    assert_equals_reference(data)


@pytest.mark.slow
@REPEATABLE
@given(damaged_label_files())
def test_damaged_files_parse_as_by_the_reference_parser(data):
    assert_equals_reference(data)


@settings(REPEATABLE, max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_give_rows_or_problems_and_no_exception(data):
    parsed = parse_labels(data, num_classes=3)
    assert np.isfinite(parsed.rows).all()
    assert ((parsed.rows[:, 1:] >= 0) & (parsed.rows[:, 1:] <= 1)).all()


@pytest.mark.parametrize(
    ("text", "line", "column", "value"),
    [
        ("0 .5 .5 .2 .2\n0 1.32 .5 .2 .2", 2, 2, "1.32"),
        ("\n\n0 .5 -.1 .2 .2", 3, 3, "-.1"),
        ("0 .5 .5 nan .2", 1, 4, "nan"),
        ("0 .5 .5 .2 inf", 1, 5, "inf"),
        ("0.5 .5 .5 .2 .2", 1, 1, "0.5"),
        ("-1 .5 .5 .2 .2", 1, 1, "-1"),
        ("inf .5 .5 .2 .2", 1, 1, "inf"),
        ("cat .5 .5 .2 .2", 1, 1, "cat"),
        ("0,.5,.5,.2,.2", 1, 0, "1"),
        ("0 .5 .5 .2", 1, 0, "4"),
        ("0 .1 .1 .2 .2 .3", 1, 0, "6"),
        ("0 .1 .1 .2 .2 .3 1.5", 1, 7, "1.5"),
        ("0 .1 .1 .2 .2 -.3 .5", 1, 6, "-.3"),
        ("0 .5 .5 1_0 .2", 1, 4, "1_0"),
    ],
)
def test_problem_has_line_column_and_value(text, line, column, value):
    (problem,) = rows_of(text).problems
    assert (problem.line, problem.column, problem.is_class_range) == (line, column, False)
    assert value in re.findall(r"[-.\w]+", problem.what)


@pytest.mark.parametrize("column", [2, 3, 4, 5])
def test_problem_of_a_box_names_the_field(column):
    fields = ["0", ".5", ".5", ".2", ".2"]
    fields[column - 1] = "7"
    (problem,) = rows_of(" ".join(fields)).problems
    assert problem.column == column and problem.what.split()[:2] == [COLUMNS[column - 1], "7"]


def test_every_bad_row_is_reported_and_good_rows_stay():
    parsed = rows_of("0 .5 .5 .2 .2\n0 2 .5 .2 .2\nx .5 .5 .2 .2\n1 .5 .5 .2 .2\n")
    assert [problem.line for problem in parsed.problems] == [2, 3]
    assert parsed.rows[:, 0].tolist() == [0, 1]


def test_class_id_beyond_names_has_its_own_flag():
    (problem,) = rows_of("3 .5 .5 .2 .2", num_classes=3).problems
    assert problem.is_class_range and (problem.line, problem.column) == (1, 1)
    assert re.findall(r"\d+", problem.what) == ["3", "0", "2"]
    assert not rows_of("2 .5 .5 .2 .2", num_classes=3).problems


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_endings_are_equivalent(end):
    parsed = rows_of(f"0 .5 .5 .2 .2{end}{end}1 .25 .5 .1 .2  \t{end}2 2 .5 .1 .2")
    np.testing.assert_allclose(parsed.rows, [[0, 0.5, 0.5, 0.2, 0.2], [1, 0.25, 0.5, 0.1, 0.2]], atol=1e-7)
    assert parsed.problems[0].line == 4


def test_byte_order_mark_and_exponents_are_read():
    parsed = rows_of(b"\xef\xbb\xbf1 5e-1 .5 1e-3 2E-1")
    np.testing.assert_allclose(parsed.rows, [[1, 0.5, 0.5, 0.001, 0.2]], rtol=1e-6)
    assert not parsed.problems


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t", b"\xef\xbb\xbf"])
def test_empty_file_is_background(data):
    parsed = rows_of(data)
    assert parsed.rows.shape == (0, 5) and not parsed.problems and not parsed.dropped


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_may_begin_with_a_byte_order_mark(encoding):
    assert rows_of("0 .5 .5 .2 .2\r\n".encode(encoding)).rows.tolist() == rows_of("0 .5 .5 .2 .2").rows.tolist()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(encoding):
    parsed = rows_of("0 .5 .5 .2 .2".encode(encoding))
    assert parsed.problems and not len(parsed.rows)


def test_gbk_comment_is_refused_with_its_byte_offset():
    (problem,) = rows_of("0 .5 .5 .2 .2\n中".encode("gbk")).problems
    assert (problem.line, problem.column) == (1, 0) and re.findall(r"\d+", problem.what)[-1] == "14"


@pytest.mark.parametrize("value", ["1e9", "-1e300", "9" * 400])
def test_absurd_numbers_are_errors_of_the_row_even_as_class_ids(value):
    for column, text in enumerate((f"{value} .5 .5 .2 .2", f"0 {value} .5 .2 .2"), start=1):
        (problem,) = rows_of(text).problems
        assert (problem.line, problem.column, problem.is_class_range) == (1, column, False)


def test_boxes_and_polygons_mix_row_by_row():
    parsed = rows_of("0 .5 .5 .2 .4\n1 .1 .2 .3 .2 .2 .6\n2 .25 .25 .1 .1\n")
    expected = [[0, 0.5, 0.5, 0.2, 0.4], [1, 0.2, 0.4, 0.2, 0.4], [2, 0.25, 0.25, 0.1, 0.1]]
    np.testing.assert_allclose(parsed.rows, expected, atol=1e-6)
    assert parsed.num_polygons == 1


def test_duplicates_and_rows_without_area_are_dropped_and_counted():
    parsed = rows_of("0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 0.50 .5 .2 2e-1\n0 .5 .5 0 .2\n1 .1 .1 .2 .1 .3 .1")
    np.testing.assert_allclose(parsed.rows[:, 0], [0, 1])
    assert parsed.dropped == 3 and not parsed.problems


def test_order_of_rows_survives_the_removal_of_duplicates():
    parsed = rows_of("2 .5 .5 .2 .2\n0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 .5 .5 .2 .2")
    assert parsed.rows[:, 0].tolist() == [2, 0, 1]


def test_box_beyond_the_border_is_clipped_and_counted_but_rounding_is_not():
    parsed = rows_of("0 .1 .5 .4 .2\n0 .5 .9 .2 .4\n0 .1 .3 .20001 .2")
    np.testing.assert_allclose(parsed.rows[0], [0, 0.15, 0.5, 0.3, 0.2], atol=1e-6)
    np.testing.assert_allclose(parsed.rows[1], [0, 0.5, 0.85, 0.2, 0.3], atol=1e-6)
    assert parsed.rows[2, 1] - parsed.rows[2, 3] / 2 >= 0
    assert parsed.clipped == 2


def test_width_that_vanishes_in_float32_is_dropped():
    parsed = rows_of("0 .5 .5 1e-46 .2")
    assert len(parsed.rows) == 0 and parsed.dropped == 1


@pytest.mark.parametrize("text", ["\u0660 .5 .5 .2 .2", "0 \uff10.5 .5 .2 .2"])
def test_digits_of_other_scripts_are_not_numbers(text):
    assert rows_of(text).problems


def test_message_is_short_for_any_class():
    (problem,) = rows_of("1e300 .5 .5 .2 .2").problems
    assert len(problem.what) <= 120


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/x/images/b.c.png", "/images/x/labels/b.c.txt"),
        ("images/a.jpg", "labels/a.txt"),
        ("a.jpg", "a.txt"),
        ("/d/pics/a.jpg", "/d/pics/a.txt"),
        ("/d/images2/my images/a.JPG", "/d/images2/my images/a.txt"),
        ("/d/images/images.jpg", "/d/labels/images.txt"),
        ("/d/images/images/a.jpg", "/d/images/labels/a.txt"),
        ("/d/images/中文 🚦/é.webp", "/d/labels/中文 🚦/é.txt"),
    ],
)
def test_label_path_replaces_the_last_images_folder_and_the_suffix(image, labels):
    assert label_path(image) == labels


def test_missing_label_file_is_none_and_empty_one_is_not(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    assert read_label_content(str(tmp_path / "a.jpg")) == b""
    assert read_label_content(str(tmp_path / "b.jpg")) is None


def test_polygons_have_the_indices_of_their_rows():
    parsed = rows_of("0 .5 .5 .2 .4\n1 .1 .2 .3 .2 .2 .6\n2 .25 .25 .1 .1\n0 .5 .1 .9 .1 .9 .8 .5 .8 .5 .4\n")
    assert parsed.polygons.known.tolist() == [False, True, False, True] and parsed.num_polygons == 2
    np.testing.assert_allclose(parsed.polygons.of(1), [(0.1, 0.2), (0.3, 0.2), (0.2, 0.6)], atol=1e-7)
    assert len(parsed.polygons.of(3)) == 5 and parsed.polygons.points.dtype == np.float32


def test_polygons_stay_with_their_rows_if_other_rows_are_dropped():
    ring = ".1 .2 .3 .2 .2 .6"
    text = f"0 .5 .5 .2 .2\n0 .1 .1 .2 .1 .3 .1\n1 {ring}\n0 .5 .5 .2 .2\n1 {ring}\n2 .4 .4 .6 .4 .6 .5\n2 x\n"
    parsed = rows_of(text)
    assert parsed.rows[:, 0].tolist() == [0, 1, 2] and parsed.dropped == 3 and len(parsed.problems) == 1
    assert [len(parsed.polygons.of(i)) for i in range(3)] == [0, 3, 3]
    np.testing.assert_allclose(parsed.polygons.of(2)[0], (0.4, 0.4))


@settings(REPEATABLE, max_examples=60)
@given(label_files())
def test_every_polygon_has_the_bounding_box_of_its_row(data):
    parsed = parse_labels(data, num_classes=3)
    assert len(parsed.polygons) == len(parsed.rows)
    for row, known, i in zip(parsed.rows, parsed.polygons.known, range(len(parsed.rows)), strict=True):
        if known:
            ring = parsed.polygons.of(i).astype(np.float64)
            low, high = ring.min(0), ring.max(0)
            np.testing.assert_allclose(row[1:], (*((low + high) / 2), *(high - low)), atol=1e-6)
