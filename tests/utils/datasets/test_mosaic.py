import numpy as np
import pytest

from tests.helpers.data_oracles import bright_box, image_with_rectangle
from tests.helpers.samples import sample_of, sample_with_polygon
from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.mosaic import mosaic


@pytest.mark.parametrize("centre_xy", [(100, 100), (50, 150), (150, 60), (50, 50), (133, 77)])
def test_mosaic_boxes_follow_pixels(centre_xy):
    size = 100
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    sizes = [(70, 100), (100, 60), (45, 100), (100, 99)]
    tiles = []
    for class_id, ((height, width), colour) in enumerate(zip(sizes, colours, strict=True)):
        box = (width // 4, height // 3, width - 9, height - 5)
        tiles.append(sample_of(image_with_rectangle(height, width, box, colour), box, classes=[class_id]))
    joined = mosaic(tiles, size=size, centre_xy=centre_xy)
    assert joined.image.shape == (200, 200, 3) and joined.boxes.dtype == np.float32
    expected = {}
    for class_id, colour in enumerate(colours):
        box = bright_box(np.where((joined.image == colour).all(-1, keepdims=True), 255, 0))
        if box is not None:
            expected[class_id] = box.tolist()
    assert dict(zip(joined.classes.tolist(), joined.boxes.tolist(), strict=True)) == expected
    assert len(expected) >= 3


def test_mosaic_tiles_meet_at_the_centre_and_the_rest_is_grey():
    tiles = [sample_of(np.full((20, 30, 3), value, np.uint8)) for value in (1, 2, 3, 4)]
    image = mosaic(tiles, size=64, centre_xy=(50, 40)).image[..., 0]
    assert [image[39, 49], image[39, 50], image[40, 49], image[40, 50]] == [1, 2, 3, 4]
    assert [(image == value).sum() for value in (1, 2, 3, 4)] == [600] * 4
    assert (image == PAD_VALUE).sum() == 128 * 128 - 2400


def test_mosaic_clips_polygons_to_the_canvas_and_refits_their_boxes():
    ring = [(0, 10), (60, 10), (60, 30), (0, 90)]  # narrows to the right
    tiles = [sample_with_polygon(np.zeros((100, 100, 3), np.uint8), ring, others=[(70, 70, 90, 90)]) for _ in range(4)]
    joined = mosaic(tiles, size=100, centre_xy=(50, 60))
    assert len(joined.boxes) == len(joined.polygons) == len(joined.classes)
    assert (joined.polygons.points >= 0).all() and (joined.polygons.points <= 200).all()
    for i in np.flatnonzero(joined.polygons.known):
        clipped = joined.polygons.of(int(i))
        np.testing.assert_allclose(joined.boxes[i], (*clipped.min(0), *clipped.max(0)), atol=1e-4)
    # The top left tile is shifted by 50 to the left and 40 up. Its lowest part is clipped with the left half: at column
    # 50 the sloping lower edge is at 90 - 50 = 40, the upper border of the canvas.
    assert 3 not in joined.classes and not (joined.boxes[:, 3] <= 0).any()
    lone = mosaic([tiles[0]] + [sample_of(np.zeros((100, 100, 3), np.uint8))] * 3, size=100, centre_xy=(80, 100))
    np.testing.assert_allclose(lone.boxes, [(0, 10, 40, 70), (50, 70, 70, 90)], atol=1e-4)
