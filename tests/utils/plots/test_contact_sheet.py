"""Crops around boxes, and sheets of them."""

import numpy as np
import pytest

from utils.plots.contact_sheet import CELL, COLUMNS, PADDING, Crop, Outline, contact_sheet, draw_crop

GREY, RED = 200, (255, 0, 0)
INNER = slice(2, CELL - 16)  # without the name


def crop(box, *, image_hw=(300, 500), outlines=(), caption="c", name="n"):
    image = np.full((*image_hw, 3), GREY, np.uint8)
    return Crop(image=image, box=np.array(box, float), outlines=outlines, caption=caption, name=name)


@pytest.mark.parametrize("box", [(200, 100, 260, 140), (0, 0, 20, 90), (440, 280, 500, 300)])
def test_a_crop_lies_inside_the_image_and_is_square(box):
    drawn = draw_crop(crop(box))
    assert drawn.shape == (CELL, CELL, 3) and (drawn[INNER, INNER] == GREY).all()


def test_the_box_takes_half_of_the_crop_at_its_place():
    image = np.full((300, 500, 3), GREY, np.uint8)
    image[100:140, 200:280] = 0
    drawn = draw_crop(Crop(image=image, box=np.array([200, 100, 280, 140.0]), outlines=(), caption="", name=""))
    dark = np.argwhere(drawn[INNER, :, 0] < 20)
    dark[:, 0] += INNER.start
    (top, left), (bottom, right) = dark.min(0), dark.max(0) + 1
    assert [left, right] == pytest.approx([CELL / 4, CELL * 3 / 4], abs=2)
    assert [top, bottom] == pytest.approx([CELL * 3 / 8, CELL * 5 / 8], abs=2)


def test_a_box_larger_than_half_the_image_is_padded():
    drawn = draw_crop(crop((0, 0, 90, 40), image_hw=(60, 90)))
    assert (drawn[4:50, 4:50] == GREY).all() and (drawn[70:150, 100:] == PADDING).all()


def test_outlines_are_drawn_where_their_boxes_are():
    box = np.array([200, 100, 280, 140.0])
    thin, thick = (draw_crop(crop(box, outlines=[Outline(box, RED, thick)])) for thick in (False, True))
    red = [(drawn[..., 0] > 200) & (drawn[..., 1] < 60) for drawn in (thin, thick)]
    assert red[0].sum() < red[1].sum()
    rows, columns = np.nonzero(red[0])
    assert [columns.min(), columns.max()] == pytest.approx([CELL / 4, CELL * 3 / 4], abs=2)
    assert [rows.min(), rows.max()] == pytest.approx([CELL * 3 / 8, CELL * 5 / 8], abs=2)


def test_a_sheet_is_as_wide_as_a_full_row_and_grows_with_its_legend():
    crops = [crop((200, 100, 260, 140))] * 2
    short, long = contact_sheet(crops, "legend"), contact_sheet(crops, "many words " * 60)
    assert short.shape[1] == long.shape[1] == COLUMNS * CELL and len(long) > len(short) > CELL
    assert (short[-20:, 2 * CELL + 1 :] == 255).all()
    assert len(contact_sheet(crops * 4, "legend")) > len(short) + CELL
