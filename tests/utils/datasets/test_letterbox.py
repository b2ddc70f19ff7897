import json

import numpy as np
import pytest

from tests.helpers.data_oracles import REFERENCE, bright_box, image_with_rectangle
from utils.datasets.letterbox import PAD_VALUE, letterbox, resize_longest_side, scaled_size
from utils.structures import LetterboxTransform

CASES = json.loads((REFERENCE / "letterbox.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['h']}x{c['w']}-{c['new']}-{c['auto']}-{c['scaleup']}")
def test_geometry_equals_the_reference(case):
    target = case["new"] if isinstance(case["new"], list) else [case["new"]] * 2
    size_hw = (case["h"], case["w"])
    scaled_hw = scaled_size(size_hw, tuple(target), scale_up=case["scaleup"])
    assert scaled_hw == tuple(round(side * ratio) for side, ratio in zip(size_hw, case["ratio"], strict=True))
    stride = 32 if case["auto"] else None
    image = np.full((*size_hw, 3), 7, np.uint8)
    padded, transform = letterbox(image, tuple(target), stride=stride, scale_up=case["scaleup"])
    assert list(padded.shape) == [*case["out"], 3]
    assert transform.ratio_wh == (scaled_hw[1] / case["w"], scaled_hw[0] / case["h"])
    assert transform.pad_wh == tuple(round(pad - 0.1) for pad in case["pad"])
    right, bottom = (round(pad + 0.1) for pad in case["pad"])
    inside = padded[int(transform.pad_wh[1]) : len(padded) - bottom, int(transform.pad_wh[0]) : padded.shape[1] - right]
    assert inside.shape == (*scaled_hw, 3) and (inside == 7).all()
    assert (padded == 7).sum() == inside.size, "everything else is padding"


def test_reference_covers_all_options():
    assert len(CASES) > 10
    assert {(case["auto"], case["scaleup"]) for case in CASES} >= {(True, True), (False, True), (True, False)}


@pytest.mark.parametrize("stride", [32, None])
@pytest.mark.parametrize("size_hw", [(45, 80), (80, 45), (33, 97), (128, 96), (300, 211)])
def test_boxes_follow_the_pixels_into_the_input(size_hw, stride):
    height, width = size_hw
    box = (width // 5, height // 4, width // 2, height // 4 + height // 3)
    image, transform = letterbox(image_with_rectangle(height, width, box), (96, 128), stride=stride)
    np.testing.assert_allclose(transform.to_input(np.array([box], np.float32))[0], bright_box(image), atol=1.01)
    assert transform.original_hw == size_hw


def test_padding_is_grey_and_the_odd_column_is_on_the_right():
    image, transform = letterbox(np.full((50, 97, 3), 7, np.uint8), (100, 100), scale_up=False)
    assert image.shape == (100, 100, 3) and transform.pad_wh == (1.0, 25.0)
    assert (image[:25] == PAD_VALUE).all() and (image[75:] == PAD_VALUE).all()
    assert (image[25:75, :1] == PAD_VALUE).all() and (image[25:75, 98:] == PAD_VALUE).all()
    assert (image[25:75, 1:98] == 7).all()


def test_odd_row_is_at_the_bottom():
    image, transform = letterbox(np.full((45, 100, 3), 7, np.uint8), (100, 100))
    assert transform.pad_wh == (0.0, 27.0)
    assert (image[:27] == PAD_VALUE).all() and (image[27:72] == 7).all() and (image[72:] == PAD_VALUE).all()


def test_small_image_is_enlarged_only_with_scale_up():
    for scale_up, ratio in ((True, (4.0, 4.0)), (False, (1.0, 1.0))):
        _, transform = letterbox(np.zeros((20, 32, 3), np.uint8), (96, 128), scale_up=scale_up)
        assert transform.ratio_wh == ratio


def test_transform_is_from_the_original_if_the_image_was_scaled_before():
    box = (100, 40, 300, 160)
    original = image_with_rectangle(200, 400, box)
    small = resize_longest_side(original, 128, smooth=True)
    image, transform = letterbox(small, (96, 128), original_hw=(200, 400))
    assert transform.original_hw == (200, 400)
    np.testing.assert_allclose(transform.to_input(np.array([box], np.float32))[0], bright_box(image, 150), atol=1.01)


def test_to_original_inverts_to_input():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in rng.integers(20, 900, 2))
        stride = (None, 32)[rng.integers(2)]
        _, transform = letterbox(np.zeros((height, width, 3), np.uint8), (160, 224), stride=stride)
        low, high = rng.random((5, 2)) * 0.5, 0.5 + rng.random((5, 2)) * 0.5
        boxes = (np.concatenate((low, high), 1) * [width, height, width, height]).astype(np.float32)
        in_input = transform.to_input(boxes)
        assert in_input.dtype == np.float32
        back = transform.to_original(in_input)
        np.testing.assert_allclose(back, boxes, rtol=1e-4, atol=1e-3)


def test_boxes_are_clipped_to_the_original():
    transform = LetterboxTransform(original_hw=(40, 60), ratio_wh=(2.0, 2.0), pad_wh=(4.0, 8.0))
    boxes = transform.to_original(np.array([[0.0, 0.0, 500.0, 500.0], [24.0, 28.0, 44.0, 48.0]], np.float32))
    assert boxes.tolist() == [[0, 0, 60, 40], [10, 10, 20, 20]]


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((100, 200), (64, 128)),
        ((200, 100), (128, 64)),
        ((50, 30), (128, 77)),
        ((1, 5000), (1, 128)),
        ((128, 77), (128, 77)),
    ],
)
@pytest.mark.parametrize("smooth", [True, False])
def test_longest_side_is_scaled_to_the_size(size_hw, expected, smooth):
    assert resize_longest_side(np.zeros((*size_hw, 3), np.uint8), 128, smooth=smooth).shape == (*expected, 3)


def test_image_of_the_right_size_is_not_resampled():
    image = np.random.default_rng(0).integers(0, 256, (40, 128, 3), dtype=np.uint8)
    assert np.array_equal(resize_longest_side(image, 128, smooth=False), image)


def test_smooth_shrinking_averages_areas():
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, ::4] = 200
    assert np.abs(resize_longest_side(stripes, 20, smooth=True).astype(int) - 50).max() <= 1
    assert np.abs(resize_longest_side(stripes, 20, smooth=False).astype(int) - 50).max() > 10


def test_very_long_image_is_letterboxed():
    image, _ = letterbox(np.zeros((1, 5000, 3), np.uint8), (96, 128))
    assert image.shape == (96, 128, 3)
