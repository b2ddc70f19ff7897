"""Class names of weights and data sets: mismatches, placeholders and duplicates."""

import pytest

from utils.inference.class_mapping import class_name_mismatch, distinct_names


def test_the_first_mismatch_is_described():
    mismatch = class_name_mismatch(("ring", "cat", "dog"), ("ring", "dog", "cat"))
    assert "class 1" in mismatch and mismatch.index("'cat'") < mismatch.index("'dog'")
    assert class_name_mismatch(("cat", "dog"), ("cat", "dog")) == ""


@pytest.mark.parametrize("placeholders", [("0", "1"), ("class0", "class1")])
def test_placeholders_match_any_name(placeholders):
    assert class_name_mismatch(placeholders, ("cat", "dog")) == class_name_mismatch(("cat", "dog"), placeholders) == ""
    assert class_name_mismatch(placeholders[::-1], ("cat", "dog")), "out of order, they are names"


def test_duplicate_names_get_their_class_ids():
    assert distinct_names(("cell", "dog")) == ("cell", "dog")
    assert distinct_names(["cell", "cell", "x"]) == ("cell (0)", "cell (1)", "x (2)")
    names = distinct_names(["cell", "cell", "cell (0)"])
    assert len(set(names)) == 3 and distinct_names(names) == names
