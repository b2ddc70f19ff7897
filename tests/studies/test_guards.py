"""The list of guards that `make guards` removes says where each of them is."""

import ast
import re

import pytest

from tests.studies.guards import ROOT, Guard, guards


def test_there_are_enough_guards_and_each_has_a_name_of_its_own() -> None:
    names = [guard.name for guard in guards()]
    assert len(names) == len(set(names)) >= 40


@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.name)
def test_a_guard_and_its_test_exist(guard: Guard) -> None:
    text = (ROOT / guard.file).read_text(encoding="utf-8")
    assert guard.code.strip() and guard.code != guard.without and text.count(guard.code) == 1
    ast.parse(text.replace(guard.code, guard.without))
    file, _, name = guard.test.partition("::")
    assert re.search(rf"^def {name or 'test_'}", (ROOT / file).read_text(encoding="utf-8"), re.M)
