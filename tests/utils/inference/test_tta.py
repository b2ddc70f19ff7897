"""Test-time augmentation maps the boxes of every transform back to the image."""

import torch

from utils.inference.detector import prepare
from utils.inference.ensemble import Ensemble
from utils.inference.tta import TTA_TRANSFORMS, TtaModel, augmented


class BrightestPixel(torch.nn.Module):
    """A detector of the brightest pixel, as a box of 10 by 20."""

    num_classes, max_stride = 1, 32

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.shapes.append(tuple(images.shape[2:]))
        width = images.shape[3]
        pixels = images.sum(1).flatten(1).argmax(1)
        rows = [(float(p % width) + 0.5, float(p // width) + 0.5, 10.0, 20.0, 0.9, 0.8) for p in pixels]
        return torch.tensor(rows)[:, None], []


def test_every_transform_finds_the_same_place_in_pixels_of_the_image() -> None:
    images = torch.zeros(2, 3, 64, 96)
    images[0, :, 40:43, 70:73] = 1
    images[1, :, 10:13, 20:23] = 1
    predictions, raw = TtaModel(BrightestPixel())(images)
    assert raw == [] and predictions.shape == (2, len(TTA_TRANSFORMS), 6)
    centers = torch.tensor([[71.5, 41.5], [21.5, 11.5]])[:, None]
    assert (predictions[..., :2] - centers).abs().max() < 2.5
    sizes = torch.tensor([[10 / scale, 20 / scale] for scale, _ in TTA_TRANSFORMS])
    torch.testing.assert_close(predictions[..., 2:4], sizes.expand(2, -1, -1))
    assert (predictions[..., 4:] == torch.tensor([0.9, 0.8])).all()


def test_scaled_images_are_padded_to_the_stride() -> None:
    detector = BrightestPixel()
    TtaModel(detector)(torch.zeros(1, 3, 64, 96))
    assert detector.shapes == [(64, 96), (64, 96), (64, 96)]


def test_the_wrapped_model_is_a_detector_without_raw_maps() -> None:
    model = TtaModel(BrightestPixel())
    assert (model.num_classes, model.max_stride) == (1, 32)
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(prepare(model, device=torch.device("cpu"))(images)[0], model(images)[0])


class Levels(torch.nn.Module):
    """A detector whose predictions hold their level and the width of the view, in the given order of strides."""

    num_classes = 1

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides, self.max_stride = strides, max(strides)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch, _, height, width = images.shape
        raw = [torch.full((batch, 3, height // s, width // s, 6), float(s)) for s in self.strides]
        rows = torch.cat([level.view(batch, -1, 6) for level in raw], 1)
        return rows * torch.tensor([1.0, 1, 1, 1, 1, 0]) + torch.tensor([0.0, 0, 0, 0, 0, width]), raw


def levels_by_view(predictions: torch.Tensor) -> dict[int, dict[int, int]]:
    """The number of predictions of each stride, by the view's width."""
    counts: dict[int, dict[int, int]] = {}
    for stride, width in predictions[0, :, 4:].int().tolist():
        view = counts.setdefault(width, {})
        view[stride] = view.get(stride, 0) + 1
    return counts


def test_the_largest_view_lacks_the_coarsest_level_and_the_smallest_the_finest() -> None:
    for strides in ((8, 16, 32), (32, 16, 8), (8, 16, 32, 64)):
        predictions, _ = augmented(Levels(strides))(torch.zeros(1, 3, 128, 640))
        full, middle, small = levels_by_view(predictions).values()
        assert set(full) == {*strides} - {max(strides)} and full[8] == 3 * 16 * 80
        assert set(middle) == {*strides}
        assert set(small) == {*strides} - {8}


def test_a_head_of_one_level_keeps_it_and_an_ensemble_is_augmented_model_by_model() -> None:
    images = torch.zeros(1, 3, 128, 640)
    assert [set(view) for view in levels_by_view(augmented(Levels((16,)))(images)[0]).values()] == [{16}] * 3
    members = [augmented(Levels(strides)) for strides in ((8, 16), (8, 32))]
    ensemble = augmented(Ensemble([Levels((8, 16)), Levels((8, 32))]))
    assert torch.equal(ensemble(images)[0], torch.cat([member(images)[0] for member in members], 1))
