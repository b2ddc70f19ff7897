"""The embedded data set: the same bits from the same seed, and a version that changes with the drawing."""

import hashlib

import numpy as np

from utils.datasets.synthetic_shapes import DRAW, VERSION, draw_image

# Hash of the labels of the first 20 images of seed 0, and the version that draws them. If the drawing changes, increase
# VERSION, so that existing data sets are drawn again, and freeze the new hash.
FROZEN = (2, "1c014df3c9601f5d")


def draw(seed: int) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    return draw_image(np.random.Generator(np.random.Philox(np.random.SeedSequence((0, 0, seed)))), tuple(DRAW))


def test_the_version_changes_with_the_drawing() -> None:
    rows = [row for seed in range(20) for row in draw(seed)[1]]
    text = "\n".join(" ".join(f"{value:.4f}" for value in row) for row in rows)
    assert (VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == FROZEN


def test_an_image_is_a_function_of_its_seed() -> None:
    (first, rows), (again, same), (other, _) = draw(3), draw(3), draw(4)
    assert np.array_equal(first, again) and rows == same
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_boxes_are_inside_the_image_and_contain_the_curves() -> None:
    for seed in range(10):
        image, rows = draw(seed)
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and height != width and rows
        for class_id, cx, cy, w, h in rows:
            assert 0 <= class_id < len(DRAW)
            x1, x2, y1, y2 = (cx - w / 2) * width, (cx + w / 2) * width, (cy - h / 2) * height, (cy + h / 2) * height
            assert -1e-6 <= x1 < x2 <= width + 1e-6 and -1e-6 <= y1 < y2 <= height + 1e-6
            inside = image[round(y1) : round(y2), round(x1) : round(x2)].astype(float)
            assert inside.std() > 8, "nothing is drawn here"
