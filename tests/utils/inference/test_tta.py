"""Test-time augmentation brings every view's boxes back to the image."""

import torch

from utils.inference.tta import TTA_TRANSFORMS, predict_tta


def brightest(images: torch.Tensor) -> tuple[torch.Tensor, None]:
    """A network that finds the brightest pixel, as a box of 10 by 20."""
    width = images.shape[3]
    place = images.sum(1).flatten(1).argmax(1)
    rows = [(float(p % width) + 0.5, float(p // width) + 0.5, 10.0, 20.0, 0.9, 0.8) for p in place]
    return torch.tensor(rows)[:, None], None


def test_every_view_finds_the_same_place_in_pixels_of_the_image() -> None:
    images = torch.zeros(2, 3, 64, 96)
    images[0, :, 40:43, 70:73] = 1
    images[1, :, 10:13, 20:23] = 1
    found = predict_tta(brightest, images, stride=32)
    assert found.shape == (2, len(TTA_TRANSFORMS), 6)
    expected = torch.tensor([[71.5, 41.5], [21.5, 11.5]])[:, None]
    assert (found[..., :2] - expected).abs().max() < 2.5
    sizes = torch.tensor([[10 / share, 20 / share] for share, _ in TTA_TRANSFORMS])
    torch.testing.assert_close(found[..., 2:4], sizes.expand(2, -1, -1))
    assert (found[..., 4:] == torch.tensor([0.9, 0.8])).all()


def test_views_are_padded_to_the_stride() -> None:
    seen = []
    predict_tta(lambda x: (seen.append(tuple(x.shape[2:])), brightest(x))[1], torch.zeros(1, 3, 64, 96), stride=32)
    assert seen == [(64, 96), (64, 96), (64, 96)]
