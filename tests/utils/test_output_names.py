"""Names of outputs: none is given out twice, none is too long, and many take no longer each than few."""

import os
from pathlib import Path

from utils.output_names import MAX_NAME_BYTES, OutputNames, cut_name


def test_a_taken_name_gets_a_number_that_is_free() -> None:
    names = OutputNames()
    given = [names.claim(stem) for stem in ("a", "a-2", "a", "a", "A", "b", "a-2")]
    assert given == ["a", "a-2", "a-3", "a-4", "A-5", "b", "a-2-2"]
    assert names.claim("a", folder="other") == "a" and names.claim("a", folder="other", separator="_") == "a_2"


def test_names_equal_but_for_case_or_the_form_of_accents_are_kept_apart() -> None:
    names = OutputNames()
    assert names.claim("é") == "é" and names.claim("e\u0301") == "e\u0301-2" and names.claim("É") == "É-3"


def test_names_of_the_greatest_length_are_kept_and_numbered_within_it(tmp_path: Path) -> None:
    names = OutputNames()
    for stem in ("x" * 251, "x" * 251, "细" * 83 + "ab", "细" * 90, "\udcca" * 300, "y" * 5000):
        name = names.claim(stem) + ".jpg"
        assert len(os.fsencode(name)) <= MAX_NAME_BYTES
        (tmp_path / name).write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 6
    assert (tmp_path / f"{'x' * 251}.jpg").exists() and (tmp_path / f"{'x' * 249}-2.jpg").exists()
    assert cut_name("细细", 5) == "细"


def test_the_work_grows_no_faster_than_the_number_of_names() -> None:
    lookups = 0

    class Counted(set):
        def __contains__(self, item: object) -> bool:
            nonlocal lookups
            lookups += 1
            return super().__contains__(item)

    names = OutputNames()
    names._taken = Counted()
    for number in range(2000):
        names.claim("same")
        names.claim(f"frame_{number:06d}")
    assert lookups <= 3 * 4000
