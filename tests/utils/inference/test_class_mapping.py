"""Class names of weights and data sets side by side."""

import pytest

from utils.inference.class_mapping import class_name_mismatch, distinct_names


def test_the_first_class_of_another_name_is_told():
    told = class_name_mismatch(("ring", "cat", "dog"), ("ring", "dog", "cat"))
    assert told.startswith("class 1 is 'cat' in the data set, but 'dog' in the model")
    assert class_name_mismatch(("cat", "dog"), ("cat", "dog")) == ""


@pytest.mark.parametrize("numbers", [("0", "1"), ("class0", "class1")])
def test_numbers_in_place_of_names_agree_with_all(numbers):
    assert class_name_mismatch(numbers, ("cat", "dog")) == class_name_mismatch(("cat", "dog"), numbers) == ""
    assert class_name_mismatch(numbers[::-1], ("cat", "dog")), "these are names"


def test_names_that_stand_twice_get_their_numbers():
    assert distinct_names(("cell", "dog")) == ("cell", "dog")
    assert distinct_names(["cell", "cell", "x"]) == ("cell (0)", "cell (1)", "x (2)")
    names = distinct_names(["cell", "cell", "cell (0)"])
    assert len(set(names)) == 3 and distinct_names(names) == names
