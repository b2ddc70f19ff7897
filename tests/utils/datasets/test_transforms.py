import cv2
import numpy as np
import pytest

from tests.helpers.data_oracles import bright_box, image_with_rectangle
from tests.helpers.samples import sample_of, sample_with_polygon
from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.transforms import (
    Augmentation,
    draw_hsv_gains,
    draw_perspective,
    flip,
    hsv_jitter,
    mixup,
    valid_after_transform,
    warp,
    warp_boxes,
)


def rectangle_sample(height, width, box):
    return sample_of(image_with_rectangle(height, width, box), box)


@pytest.mark.parametrize(("axis", "expected"), [(0, (50, 5, 70, 40)), (1, (10, 10, 30, 45))])
def test_flips_move_boxes_with_pixels_and_leave_the_original(axis, expected):
    sample = rectangle_sample(50, 80, (10, 5, 30, 40))
    flipped = flip(sample, axis=axis)
    assert flipped.boxes.tolist() == [list(expected)] and flipped.boxes.dtype == np.float32
    assert bright_box(flipped.image).tolist() == list(expected)
    assert bright_box(sample.image).tolist() == sample.boxes[0].tolist() == [10, 5, 30, 40]
    again = flip(flipped, axis=axis)
    assert np.array_equal(again.image, sample.image) and np.array_equal(again.boxes, sample.boxes)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_accept_samples_without_boxes(axis):
    assert flip(sample_of(np.zeros((5, 8, 3), np.uint8)), axis=axis).boxes.shape == (0, 4)


@pytest.mark.parametrize("perspective", [0.0, 0.001])
def test_boxes_follow_pixels_through_drawn_warps(perspective):
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        x1, y1 = (int(v) for v in rng.integers(15, 60, 2))
        box = (x1, y1, x1 + int(rng.integers(25, 70)), y1 + int(rng.integers(20, 45)))
        strength = Augmentation(degrees=25, translate=0.15, scale=0.3, shear=8, perspective=perspective)
        matrix = draw_perspective(rng, strength, size_hw=(120, 170), out_hw=(140, 190))
        warped = warp(rectangle_sample(120, 170, box), matrix, (140, 190))
        visible = bright_box(warped.image)
        assert warped.image.shape == (140, 190, 3) and len(warped.boxes) == 1
        (box_after,) = warped.boxes
        assert (box_after[:2] >= 0).all() and box_after[2] <= 190 and box_after[3] <= 140
        assert (box_after[:2] <= visible[:2] + 2).all() and (box_after[2:] >= visible[2:] - 2).all()
        unclipped = warp_boxes(np.array([box], np.float32), matrix)[0]
        if (unclipped[:2] >= 0).all() and unclipped[2] <= 190 and unclipped[3] <= 140:
            inside += 1
            np.testing.assert_allclose(box_after, visible, atol=2)
    assert inside > 25


def test_warp_without_strength_centres_the_image():
    rng = np.random.default_rng(0)
    matrix = draw_perspective(rng, Augmentation(), size_hw=(60, 100), out_hw=(80, 140))
    warped = warp(rectangle_sample(60, 100, (10, 20, 50, 45)), matrix, (80, 140))
    assert warped.boxes.tolist() == [[30, 30, 70, 55]]
    assert bright_box(warped.image).tolist() == [30, 30, 70, 55]
    assert (warped.image[:9] == PAD_VALUE).all() and (warped.image[:, :19] == PAD_VALUE).all()


def test_drawn_warps_cover_exactly_their_ranges():
    rng = np.random.default_rng(0)
    draw = {"size_hw": (60, 100), "out_hw": (60, 100)}
    zooms, angles, shifts = [], [], []
    for _ in range(300):
        matrix = draw_perspective(rng, Augmentation(scale=0.5), **draw)
        zooms.append(matrix[0, 0])
        matrix = draw_perspective(rng, Augmentation(degrees=10), **draw)
        angles.append(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))
        shifts.append(draw_perspective(rng, Augmentation(translate=0.1), **draw)[:2, 2] / (100, 60))
    for values, limits in ((zooms, (0.5, 1.5)), (angles, (-10, 10)), (np.array(shifts), (-0.1, 0.1))):
        span = limits[1] - limits[0]
        assert limits[0] - 1e-9 <= np.min(values) < limits[0] + 0.05 * span
        assert limits[1] + 1e-9 >= np.max(values) > limits[1] - 0.05 * span


def test_warp_without_boxes_changes_only_the_image():
    warped = warp(sample_of(np.zeros((40, 60, 3), np.uint8)), np.eye(3), (50, 80))
    assert warped.image.shape == (50, 80, 3) and warped.boxes.shape == (0, 4)


def test_warp_keeps_the_classes_of_the_boxes_it_keeps():
    boxes = [(-60, 5, -20, 30), (10, 5, 40, 30), (75, 5, 110, 30), (20, 10, 50, 35)]
    shift = np.eye(3)
    shift[0, 2] = -5
    warped = warp(sample_of(np.zeros((40, 80, 3), np.uint8), *boxes, classes=[3, 1, 2, 0]), shift, (40, 80))
    assert warped.classes.tolist() == [1, 2, 0]
    np.testing.assert_allclose(warped.boxes[1], (70, 5, 80, 30))


def test_area_ratio_of_a_scaled_box_is_relative_to_its_scaled_area():
    shrunk = np.diag([0.25, 0.25, 1.0])
    warped = warp(sample_of(np.zeros((80, 120, 3), np.uint8), (8, 8, 48, 40)), shrunk, (20, 30))
    assert warped.boxes.tolist() == [[2, 2, 12, 10]], "a sixteenth of the area is left, but all of the scaled area"


@pytest.mark.parametrize(
    ("before", "after", "valid"),
    [
        ((0, 0, 10, 10), (0, 0, 2, 10), False),  # not wider than 2
        ((0, 0, 10, 10), (0, 0, 2.01, 10), True),
        ((0, 0, 10, 10), (0, 0, 10, 2), False),  # not higher than 2
        ((0, 0, 10, 10), (0, 0, 10, 2.01), True),
        ((0, 0, 16, 10), (0, 0, 4, 4), False),  # exactly a tenth of the area
        ((0, 0, 16, 10), (0, 0, 4, 4.01), True),
        ((0, 0, 16, 10.01), (0, 0, 4, 4), False),
        ((0, 0, 400, 4), (0, 0, 400, 4), False),  # aspect exactly 100
        ((0, 0, 399, 4), (0, 0, 399, 4), True),
        ((0, 0, 4, 400), (0, 0, 4, 400), False),
        ((0, 0, 4, 399), (0, 0, 4, 399), True),
        ((5, 5, 5, 5), (5, 5, 5, 5), False),
        ((0, 0, 5, 5), (9, 9, 9, 4), False),
    ],
)
def test_box_is_valid_by_its_sides_area_ratio_and_aspect(before, after, valid):
    rows = [np.array([box], np.float64) for box in (before, after)]
    assert valid_after_transform(*rows).tolist() == [valid]


def test_mixup_mixes_pixels_by_ratio_and_joins_labels():
    first = sample_of(np.full((4, 6, 3), 200, np.uint8), (0, 0, 2, 2), classes=[1])
    second = sample_of(np.full((4, 6, 3), 40, np.uint8), (1, 1, 5, 3), (2, 0, 4, 4), classes=[0, 2])
    mixed = mixup(first, second, 0.75)
    assert (mixed.image == 160).all() and mixed.image.dtype == np.uint8
    assert mixed.boxes.tolist() == [[0, 0, 2, 2], [1, 1, 5, 3], [2, 0, 4, 4]] and mixed.classes.tolist() == [1, 0, 2]


def test_gains_of_one_change_colours_only_by_rounding():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    shifted = hsv_jitter(image, (1.0, 1.0, 1.0))
    assert np.abs(shifted.astype(int) - image).max() <= 6 and np.abs(shifted.astype(int) - image).mean() < 1.5
    grey = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    assert np.array_equal(hsv_jitter(grey, (1.0, 1.0, 1.0)), grey)


@pytest.mark.parametrize(
    ("colour", "gains", "expected"),
    [
        ((0, 255, 0), (2.0, 1, 1), (0, 0, 255)),  # 120 degrees become 240
        ((0, 255, 0), (1.5, 1, 1), (0, 255, 255)),  # 180
        ((0, 0, 255), (1.5, 1, 1), (255, 0, 0)),  # 360 is 0 again
        ((0, 0, 255), (1.75, 1, 1), (255, 255, 0)),  # 420 is 60
        ((255, 0, 0), (1.9, 1, 1), (255, 0, 0)),  # 0 stays 0
        ((200, 100, 100), (1, 0.0, 1), (200, 200, 200)),  # no saturation
        ((200, 100, 100), (1, 1, 0.5), (100, 50, 50)),  # half the value
        ((200, 100, 100), (1, 1, 2.0), (255, 127, 127)),  # value clipped
        ((200, 100, 100), (1, 9.0, 1), (200, 0, 0)),  # saturation clipped
    ],
)
def test_gains_change_known_colours(colour, gains, expected):
    image = np.full((3, 5, 3), colour, np.uint8)
    shifted = hsv_jitter(image, gains)
    assert np.abs(shifted.astype(int) - expected).max() <= 2
    assert (image == colour).all()


def test_drawn_gains_cover_exactly_their_ranges():
    rng = np.random.default_rng(0)
    gains = np.array([draw_hsv_gains(rng, Augmentation(hsv_h=0.015, hsv_s=0.7, hsv_v=0.4)) for _ in range(400)])
    assert (np.abs(gains - 1) <= (0.015, 0.7, 0.4)).all()
    assert (np.abs(gains - 1).max(0) > np.multiply((0.015, 0.7, 0.4), 0.95)).all()
    assert draw_hsv_gains(rng, Augmentation()) == (1, 1, 1)


def test_opencv_threads_do_not_change_a_warp():
    rng = np.random.default_rng(0)
    sample = sample_of(rng.integers(0, 256, (150, 210, 3), dtype=np.uint8), (10, 10, 60, 50))
    matrix = draw_perspective(rng, Augmentation(degrees=9, scale=0.2), size_hw=(150, 210), out_hw=(128, 160))
    threads, results = cv2.getNumThreads(), []
    for count in (1, 2):
        cv2.setNumThreads(count)
        warped = warp(sample, matrix, (128, 160))
        results.append((hsv_jitter(warped.image, (1.01, 1.2, 0.8)).tobytes(), warped.boxes.tobytes()))
    cv2.setNumThreads(threads)
    assert results[0] == results[1]


@pytest.mark.parametrize("axis", [0, 1])
def test_flipped_polygons_have_the_flipped_boxes(axis):
    sample = sample_with_polygon(
        np.zeros((50, 80, 3), np.uint8), [(10, 5), (30, 12), (22, 40)], others=[(40, 1, 60, 9)]
    )
    flipped = flip(sample, axis=axis)
    ring = flipped.polygons.of(0)
    np.testing.assert_allclose((*ring.min(0), *ring.max(0)), flipped.boxes[0])
    assert flipped.polygons.known.tolist() == [True, False]
    assert np.array_equal(flip(flipped, axis=axis).polygons.points, sample.polygons.points)


def test_warped_box_is_that_of_the_warped_polygon_not_of_its_box():
    ring = [(40, 20), (60, 40), (40, 60), (20, 40)]  # a square on its corner: turned by 45 degrees it is upright
    angle = np.radians(45)
    rotation = np.array([(np.cos(angle), np.sin(angle), 0), (-np.sin(angle), np.cos(angle), 0), (0, 0, 1)])
    centre = np.array([(1, 0, 40), (0, 1, 40), (0, 0, 1)], float)
    matrix = centre @ rotation @ np.linalg.inv(centre)
    result = warp(sample_with_polygon(np.zeros((80, 80, 3), np.uint8), ring), matrix, (80, 80))
    half = 20 / np.sqrt(2)
    np.testing.assert_allclose(result.boxes, [[40 - half, 40 - half, 40 + half, 40 + half]], atol=1e-4)
    plain = warp(sample_of(np.zeros((80, 80, 3), np.uint8), (20, 20, 60, 60)), matrix, (80, 80))
    assert plain.boxes[0, 2] - plain.boxes[0, 0] > 50


@pytest.mark.parametrize(
    ("visible", "box_valid", "polygon_valid"), [(12, True, True), (8, False, True), (0.9, False, False)]
)
def test_polygon_is_valid_down_to_a_hundredth_of_its_area(visible, box_valid, polygon_valid):
    """Of an object 100 px wide and high, only `visible` columns remain."""
    shift = np.eye(3)
    shift[0, 2] = -(100 - visible)
    image = np.zeros((120, 300, 3), np.uint8)
    ring = [(0, 0), (100, 0), (100, 100), (0, 100)]
    assert len(warp(sample_of(image, (0, 0, 100, 100)), shift, (120, 300)).boxes) == box_valid
    result = warp(sample_with_polygon(image, ring, others=[(0, 0, 100, 100)]), shift, (120, 300))
    assert result.classes.tolist() == [0] * polygon_valid + [1] * box_valid
    assert result.polygons.known.tolist() == [True] * polygon_valid + [False] * box_valid


def test_pixels_equal_those_of_the_direct_operations():
    """Warping four channels and separate lookup tables are faster, but give the same bits."""
    rng = np.random.default_rng(0)
    for i in range(30):
        height, width, out_h, out_w = (int(v) for v in rng.integers(20, 200, 4))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        strength = Augmentation(degrees=9, translate=0.2, scale=0.5, shear=3, perspective=0.0004 * (i % 2))
        matrix = draw_perspective(rng, strength, size_hw=(height, width), out_hw=(out_h, out_w))
        border = {"borderValue": (PAD_VALUE,) * 3}
        if i % 2:
            direct = cv2.warpPerspective(image, matrix, (out_w, out_h), **border)
        else:
            direct = cv2.warpAffine(image, matrix[:2], (out_w, out_h), **border)
        assert np.array_equal(warp(sample_of(image), matrix, (out_h, out_w)).image, direct)
        assert np.array_equal(flip(sample_of(image), axis=0).image, image[:, ::-1])
        assert np.array_equal(flip(sample_of(image), axis=1).image, image[::-1])
        gains = draw_hsv_gains(rng, Augmentation(hsv_h=0.02, hsv_s=0.7, hsv_v=0.4))
        levels = np.arange(256, dtype=np.float64)
        table = np.stack([(levels * gains[0]) % 180, *((levels * gain).clip(0, 255) for gain in gains[1:])], -1)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table.astype(np.uint8)[None])
        assert np.array_equal(hsv_jitter(image, gains), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
