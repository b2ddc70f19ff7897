"""Boxes and labels lie where they should, to the pixel; grids place images and captions."""

import numpy as np
import pytest

from utils.plots.boxes import PALETTE, STRIP_HEIGHT, class_colour, draw_boxes, image_grid


def test_boxes_are_drawn_at_their_corners_in_the_class_colour_on_a_copy():
    image = np.full((60, 80, 3), 128, np.uint8)
    drawn = draw_boxes(
        image, np.array([[10.0, 20, 50, 40], [55, 5, 70, 55]]), ["", ""], [1, 1 + len(PALETTE)], thickness=3
    )
    assert (image == 128).all()
    for x, y in ((10, 30), (50, 30), (30, 20), (30, 40), (55, 30), (70, 30)):
        assert tuple(drawn[y, x]) == class_colour(1) == PALETTE[1]
    assert (drawn[25:35, 15:45] == 128).all() and (drawn[:15, :50] == 128).all()


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10, 30, 60, 50), slice(12, 29), slice(9, 24)),  # above the box
        ((10, 2, 60, 50), slice(3, 18), slice(9, 24)),  # no room above: below the box's top edge
        ((88, 30, 99, 50), slice(12, 29), slice(70, 100)),  # shifted to the left, into the image
    ],
)
def test_a_label_lies_above_its_box_or_else_inside_the_image(box: tuple[float, ...], rows: slice, columns: slice):
    canvas = np.zeros((60, 100, 3), np.uint8)
    without = draw_boxes(canvas, np.array([box], float), [""], [0])
    drawn = draw_boxes(canvas, np.array([box], float), ["cat"], [0])
    changed = np.zeros(canvas.shape[:2], bool)
    changed[:] = (drawn != without).any(-1)
    inside = changed[rows, columns]
    assert inside.mean() > 0.4, "the label covers this area"
    colours = drawn[rows, columns].reshape(-1, 3)
    assert (colours == class_colour(0)).all(1).any() and (colours > 240).all(1).any(), "white text on the class colour"
    changed[max(rows.start - 6, 0) : rows.stop + 4, max(columns.start - 8, 0) : columns.stop + 20] = False
    assert not changed.any(), "nothing else changes"


@pytest.mark.parametrize("max_side", [1920, 60])
def test_captions_lie_above_their_images_not_on_them(max_side: int):
    shades = (30, 120, 210)
    images = [np.full((40, 60, 3), shade, np.uint8) for shade in shades]
    plain = image_grid(images, columns=2, max_side=max_side)
    captioned = image_grid(images, ["a", "b", "c"], columns=2, max_side=max_side)
    height, width = plain.shape[0] // 2, plain.shape[1] // 2
    assert (width == 60) == (max_side == 1920) and max(plain.shape) <= max(max_side, 120)
    assert captioned.shape == (plain.shape[0] + 2 * STRIP_HEIGHT, plain.shape[1], 3)
    for index, shade in enumerate(shades):
        row, column = index // 2, index % 2
        assert (plain[row * height : (row + 1) * height, column * width : (column + 1) * width] == shade).all()
        top, left = row * (height + STRIP_HEIGHT), column * width
        below = captioned[top + STRIP_HEIGHT + 1 : top + STRIP_HEIGHT + height - 1, left + 1 : left + width - 1]
        assert (below == shade).all()
        assert captioned[top : top + STRIP_HEIGHT, left : left + width].max() == 255
    assert (plain[height:, width:] == 255).all(), "the empty cell is white"
