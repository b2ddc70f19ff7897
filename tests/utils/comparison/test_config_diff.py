"""What differs between models, row by row of their yamls."""

import copy

from models.config import ModelConfig, load_model_config
from utils.comparison.config_diff import differing_rows

PLAIN = load_model_config("yolov5n.yaml")


def changed(**rows: list) -> ModelConfig:
    """The plain yaml with other rows of its backbone or head, by part and number."""
    content = copy.deepcopy(PLAIN.to_dict())
    for place, row in rows.items():
        part, number = place.split("_")
        content[part][int(number)] = row
    return ModelConfig.from_dict(content, name="changed.yaml")


def test_a_row_that_differs_in_its_module_is_told_without_its_input():
    plain = PLAIN.to_dict()["backbone"][1]
    other = changed(backbone_1=[plain[0], plain[1], "AKConv", [128, 3, 2]])
    assert differing_rows(other, PLAIN) == [f"row 1: Conv {plain[3]} -> AKConv [128, 3, 2]"]
    assert differing_rows(PLAIN, PLAIN) == []


def test_other_repeats_and_inputs_are_seen():
    content = PLAIN.to_dict()
    repeated, joined = content["backbone"][2], content["head"][2]
    other = changed(backbone_2=[repeated[0], 9, *repeated[2:]], head_2=[[11, 4], *joined[1:]])
    first, second = differing_rows(other, PLAIN)
    assert first == f"row 2: {repeated[0]} {repeated[1]} C3 {repeated[3]} -> {repeated[0]} 9 C3 {repeated[3]}"
    before, after = second.split(" -> ")
    assert before == f"row 12: {joined[0]} 1 Concat {joined[3]}" and after == f"[11, 4] 1 Concat {joined[3]}"


def test_of_other_numbers_of_rows_it_is_told_which_come_and_go():
    shorter = copy.deepcopy(PLAIN.to_dict())
    extra = [-1, 1, "Conv", [77, 3, 1]]
    shorter["backbone"].append(extra)
    for row in shorter["head"]:
        sources = row[0] if isinstance(row[0], list) else [row[0]]
        moved = [source + 1 if source >= 10 else source for source in sources]
        row[0] = moved if isinstance(row[0], list) else moved[0]
    shorter["depth_multiple"] = 0.5
    longer = ModelConfig.from_dict(shorter, name="longer.yaml")
    rows = len(PLAIN.layers)
    told = differing_rows(longer, PLAIN)
    assert told[0].startswith("depth_multiple: ") and told[1] == f"{rows + 1} rows instead of {rows}"
    assert "row 10: Conv [77, 3, 1] new" in told and len(told) == 3
    assert "row 10: Conv [77, 3, 1] left out" in differing_rows(PLAIN, longer)
