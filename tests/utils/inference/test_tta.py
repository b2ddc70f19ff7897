"""Test-time augmentation maps the boxes of every transform back to the image."""

import torch

from utils.inference.detector import prepare
from utils.inference.tta import TTA_TRANSFORMS, TtaModel


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
