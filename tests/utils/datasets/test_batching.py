import numpy as np
import pytest
import torch

from utils.datasets.batching import ShuffledBatches, collate, rectangular_batches
from utils.datasets.dataset import LoadedSample, SampleKey
from utils.datasets.letterbox import scaled_size
from utils.structures import LetterboxTransform, Sample


def order_of(batches):
    return [key.index for batch in batches for key in batch]


def shuffled(seed=3, count=23, **options):
    return ShuffledBatches(count, batch_size=5, image_size=64, seed=seed, **options)


def test_epoch_is_a_permutation_split_into_batches():
    batches = shuffled()
    listed = list(batches)
    assert [len(batch) for batch in listed] == [5, 5, 5, 5, 3] and len(batches) == 5
    assert sorted(order_of(listed)) == list(range(23)) != order_of(listed)
    assert {(key.epoch, key.size_hw) for batch in listed for key in batch} == {(0, (64, 64))}


def test_order_depends_only_on_seed_and_epoch():
    batches, orders = shuffled(), {}
    for epoch in (0, 1, 2, 7):
        batches.set_epoch(epoch)
        orders[epoch] = order_of(batches)
        assert {key.epoch for batch in batches for key in batch} == {epoch}
    assert len({tuple(order) for order in orders.values()}) == 4
    fresh = shuffled()
    fresh.set_epoch(7)
    assert order_of(fresh) == orders[7] == order_of(fresh)
    assert order_of(shuffled(seed=4)) != orders[0]


def test_rectangles_shuffle_batches_and_keep_their_members():
    sizes = np.random.default_rng(0).integers(40, 200, (23, 2))
    planned = rectangular_batches(sizes, batch_size=5, image_size=64, stride=32, pad=0.0)
    batches = shuffled(rectangles=planned)
    batches.set_epoch(2)
    members = [tuple(key.index for key in batch) for batch in batches]
    assert set(members) == {tuple(key.index for key in batch) for batch in planned} and len(members) == len(batches)
    assert members != [tuple(key.index for key in batch) for batch in planned]
    planned_sizes = {key.index: key.size_hw for batch in planned for key in batch}
    assert all(key.epoch == 2 and key.size_hw == planned_sizes[key.index] for batch in batches for key in batch)


def test_rectangles_never_allow_mosaic_even_if_they_are_square():
    planned = rectangular_batches(np.full((8, 2), 100), batch_size=4, image_size=64, stride=32, pad=0.0)
    batches = ShuffledBatches(8, batch_size=4, image_size=64, seed=0, rectangles=planned)
    assert all(not key.allow_mosaic and key.size_hw == (64, 64) for batch in batches for key in batch)
    assert all(key.allow_mosaic for batch in shuffled() for key in batch)


@pytest.mark.parametrize("count", [5, 7, 8, 9])
def test_every_process_gets_part_of_every_rectangle_in_every_epoch(count):
    sizes = np.random.default_rng(1).integers(40, 200, (count, 2))
    planned = rectangular_batches(sizes, batch_size=4, image_size=64, stride=32, pad=0.0)
    ranks = [
        ShuffledBatches(count, batch_size=4, image_size=64, seed=0, rectangles=planned, rank=rank, world_size=2)
        for rank in range(2)
    ]
    for epoch in range(8):
        for batches in ranks:
            batches.set_epoch(epoch)
        parts = [list(batches) for batches in ranks]
        assert [len(part) for part in parts] == [len(ranks[0])] * 2
        assert all(batch for part in parts for batch in part)
        members = sorted(index for part in parts for index in order_of(part))
        assert members == sorted(order_of([batch for batch in planned if len(batch) >= 2]))


@pytest.mark.parametrize(("stride", "pad"), [(32, 0.0), (32, 0.5), (64, 0.5)])
@pytest.mark.parametrize("seed", range(4))
def test_rectangles_are_multiples_of_the_stride_and_contain_their_images(stride, pad, seed):
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(20), np.log(900), (31, 2))).astype(np.int32)
    planned = rectangular_batches(sizes, batch_size=4, image_size=320, stride=stride, pad=pad)
    assert sorted(order_of(planned)) == list(range(31))
    for batch in planned:
        ((height, width),) = {key.size_hw for key in batch}
        assert height % stride == width % stride == 0
        for key in batch:
            ratio = 320 / sizes[key.index].max()
            scaled = sizes[key.index] * ratio
            assert scaled[0] <= height + 1e-6 and scaled[1] <= width + 1e-6
            size_hw = tuple(int(side) for side in sizes[key.index])
            assert max(scaled_size(size_hw, (height, width))) >= 320, "the image would be shrunk below the image size"
        needed = max(int(np.ceil((sizes[r.index] * 320 / sizes[r.index].max()).max())) for r in batch)
        assert max(height, width) < needed + (pad + 1) * stride


def test_rectangles_of_equal_images_are_minimal():
    planned = rectangular_batches(np.array([[60, 120]] * 4), batch_size=4, image_size=128, stride=32, pad=0.0)
    assert [key.size_hw for key in planned[0]] == [(64, 128)] * 4
    planned = rectangular_batches(np.array([[120, 60]] * 3), batch_size=4, image_size=128, stride=32, pad=0.0)
    assert [key.size_hw for key in planned[0]] == [(128, 64)] * 3
    planned = rectangular_batches(np.array([[120, 60], [60, 120]]), batch_size=2, image_size=128, stride=32, pad=0.5)
    assert [key.size_hw for key in planned[0]] == [(160, 160)] * 2


def test_similar_aspect_ratios_form_a_batch():
    sizes = np.array([[50, 100], [100, 50], [51, 100], [100, 51]])
    planned = rectangular_batches(sizes, batch_size=2, image_size=64, stride=32, pad=0.0)
    assert [{key.index for key in batch} for batch in planned] == [{0, 2}, {1, 3}]
    assert planned[0][0] == SampleKey(index=0, epoch=0, size_hw=(64, 64))


def loaded(index, boxes, classes, transform=None, size_hw=(40, 60)):
    image = np.random.default_rng(index).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    sample = Sample(image=image, boxes=boxes, classes=np.array(classes, np.int64))
    return LoadedSample(sample=sample, index=index, transform=transform)


def test_collated_images_are_channels_last_bytes():
    samples = [loaded(4, [], []), loaded(2, [], [])]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 40, 60) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for image, sample in zip(batch.images, samples, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), sample.sample.image)
    assert list(batch.indices) == [4, 2] and batch.targets.shape == (0, 6) and batch.targets.dtype == torch.float32


def test_collated_targets_are_normalized_by_width_and_height():
    samples = [
        loaded(0, [], []),
        loaded(1, [[6, 10, 18, 30], [-20, 0, 30, 50]], [3, 1]),
        loaded(2, [[0, 0, 60, 40]], [0]),
    ]
    expected = [[1, 3, 0.2, 0.5, 0.2, 0.5], [1, 1, 0.25, 0.5, 0.5, 1.0], [2, 0, 0.5, 0.5, 1, 1]]
    np.testing.assert_allclose(collate(samples).targets.numpy(), expected, atol=1e-6)
    assert samples[1].sample.boxes[1, 0] == -20, "the sample was changed"


def test_transforms_are_those_of_the_samples_that_have_one():
    transform = LetterboxTransform(original_hw=(80, 120), ratio_wh=(0.5, 0.5), pad_wh=(0.0, 0.0))
    assert list(collate([loaded(0, [], [], transform), loaded(1, [], [], transform)]).transforms) == [transform] * 2
    assert list(collate([loaded(0, [], [])]).transforms) == []
