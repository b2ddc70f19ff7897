import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import bright_box, image_with_rectangle, tree_hash, write_data_set
from utils.datasets.batching import ShuffledBatches, rectangular_batches
from utils.datasets.config import load_data_config
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.datasets.image_cache import ImageCache
from utils.datasets.index import build_index
from utils.datasets.loader import BatchLoader
from utils.datasets.transforms import Augmentation
from utils.threads import available_workers

STRONG = Augmentation(
    hsv_h=0.02, hsv_s=0.7, hsv_v=0.4, degrees=5, translate=0.1, scale=0.5, shear=2, perspective=0.0003,
    flipud=0.5, fliplr=0.5, mosaic=0.7, mixup=0.5,
)  # fmt: skip
SIZE = 96


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    return build_index(load_data_config(write_data_set(root, count=8)), "train", use_cache=False)


def data_set(index, **options):
    return DetectionDataset(index, **{"image_size": SIZE, "augmentation": STRONG, "seed": 7, **options})


def bytes_of(dataset, index, epoch=0, size_hw=(SIZE, SIZE)):
    sample = dataset[SampleKey(index=index, epoch=epoch, size_hw=size_hw)].sample
    return sample.image.tobytes(), sample.boxes.tobytes(), sample.classes.tobytes()


def content(batch):
    return batch.images.numpy().tobytes(), batch.targets.numpy().tobytes(), list(batch.indices), batch.images.shape


def test_sample_is_a_pure_function_of_seed_epoch_and_index(index):
    first, second = data_set(index), data_set(index)
    forwards = [bytes_of(first, i, epoch) for epoch in (0, 1) for i in range(8)]
    backwards = [bytes_of(second, i, epoch) for epoch in (1, 0) for i in reversed(range(8))]
    assert forwards == backwards[::-1]


def test_another_epoch_seed_or_index_gives_another_sample(index):
    base = bytes_of(data_set(index), 3, 5)[0]
    others = [bytes_of(data_set(index), 3, 6)[0], bytes_of(data_set(index, seed=8), 3, 5)[0]]
    others += [bytes_of(data_set(index), 4, 5)[0], bytes_of(data_set(index, seed=5), 3, 7)[0]]
    assert base not in others and len(set(others)) == 4


@pytest.mark.parametrize("cache_bytes", [30_000, 10**8])
def test_image_cache_changes_nothing(index, cache_bytes):
    uncached, cached = data_set(index), data_set(index, cache_bytes=cache_bytes)
    for epoch in (0, 1, 0):
        for i in range(8):
            assert bytes_of(uncached, i, epoch) == bytes_of(cached, i, epoch)


def test_global_random_state_is_neither_used_nor_changed(index):
    dataset = data_set(index)
    np.random.seed(1)
    before = np.random.get_state()[1].tobytes()
    first = bytes_of(dataset, 2)
    assert np.random.get_state()[1].tobytes() == before
    np.random.seed(2)
    assert bytes_of(dataset, 2) == first


@pytest.mark.parametrize("training", [True, False])
def test_workers_change_nothing_over_two_epochs(index, training):
    runs = []
    for workers in (0, 2):
        dataset = data_set(index, augmentation=STRONG if training else None)
        batches = (
            ShuffledBatches(8, batch_size=3, image_size=SIZE, seed=7)
            if training
            else rectangular_batches(index.sizes_hw, batch_size=3, image_size=SIZE, stride=32, pad=0.5)
        )
        loader = BatchLoader(dataset, batches, workers=workers)
        run = []
        for epoch in (0, 1):
            if training:
                batches.set_epoch(epoch)
            run.append([content(batch) for batch in loader])
        runs.append(run)
    assert runs[0] == runs[1]
    assert [len(epoch) for epoch in runs[0]] == [3, 3] and (runs[0][0] != runs[0][1]) is training


def test_available_workers_are_at_most_the_cores():
    assert available_workers(0) == 0 and available_workers(-3) == 0
    assert 1 <= available_workers(10**6) < 10**6


def test_batches_contain_the_samples_of_their_indices(index):
    batches = ShuffledBatches(8, batch_size=3, image_size=SIZE, seed=7)
    dataset = data_set(index)
    for batch in BatchLoader(dataset, batches, workers=0):
        for position, i in enumerate(batch.indices):
            sample = dataset[SampleKey(index=i, epoch=0, size_hw=(SIZE, SIZE))].sample
            assert np.array_equal(batch.images[position].permute(1, 2, 0).numpy(), sample.image)
            assert (batch.targets[:, 0] == position).sum() == len(sample.boxes)


def test_evaluation_boxes_are_on_their_pixels_and_map_back_to_the_file(index):
    dataset = data_set(index, augmentation=None)
    for i in range(len(index)):
        loaded = dataset[SampleKey(index=i, epoch=0, size_hw=(96, 128))]
        assert loaded.sample.image.shape == (96, 128, 3) and loaded.index == i
        np.testing.assert_allclose(loaded.sample.boxes[0], bright_box(loaded.sample.image, 150), atol=1.6)
        with Image.open(str(index.paths[i])) as opened:
            original = bright_box(np.asarray(opened))
        back = loaded.transform.to_original(loaded.sample.boxes)
        np.testing.assert_allclose(back[0], original, atol=0.01)


def test_training_boxes_are_on_their_pixels(index):
    weak = Augmentation(translate=0.1, scale=0.2, fliplr=0.5, flipud=0.5)
    dataset = data_set(index, augmentation=weak)
    compared = 0
    for epoch in range(4):
        for i in range(8):
            sample = dataset[SampleKey(index=i, epoch=epoch, size_hw=(SIZE, SIZE))].sample
            if len(sample.boxes):
                np.testing.assert_allclose(sample.boxes[0], bright_box(sample.image), atol=2)
                compared += 1
    assert compared > 25


def test_mosaic_samples_have_boxes_of_several_images_inside_the_image(index):
    dataset = data_set(index, augmentation=Augmentation(mosaic=1.0, scale=0.5, translate=0.1))
    counts = []
    for epoch in range(10):
        loaded = dataset[SampleKey(index=1, epoch=epoch, size_hw=(SIZE, SIZE))]
        sample = loaded.sample
        assert sample.image.shape == (SIZE, SIZE, 3) and loaded.transform is None
        assert (sample.boxes >= 0).all() and (sample.boxes <= SIZE).all() and len(sample.boxes) == len(sample.classes)
        counts.append(len(sample.boxes))
    assert max(counts) >= 2


def test_rectangles_are_never_mosaics(index):
    dataset = data_set(index, augmentation=Augmentation(mosaic=1.0))
    sample = dataset[SampleKey(index=0, epoch=0, size_hw=(64, 96))].sample
    assert sample.image.shape == (64, 96, 3) and len(sample.boxes) == 1


def test_single_class_makes_every_class_0(index):
    classes = [
        {int(c) for i in range(8) for c in dataset[SampleKey(index=i, epoch=0, size_hw=(SIZE, SIZE))].sample.classes}
        for dataset in (data_set(index, augmentation=None, single_class=s) for s in (False, True))
    ]
    assert classes == [{0, 1}, {0}]


def test_box_of_a_rotated_photograph_follows_its_exif_orientation(tmp_path):
    upright = image_with_rectangle(60, 100, (10, 20, 40, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated by 90 degrees counterclockwise
    write_data_set(tmp_path, count=1)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "images/train/p0.png", exif=exif)
    (tmp_path / "labels/train/p0.txt").write_text(f"0 .25 {35 / 60} .3 .5")
    index = build_index(load_data_config(str(tmp_path / "data.yaml")), "train", use_cache=False)
    dataset = DetectionDataset(index, image_size=100)
    sample = dataset[SampleKey(index=0, epoch=0, size_hw=(64, 128))].sample
    np.testing.assert_allclose(sample.boxes[0], bright_box(sample.image), atol=1.01)
    np.testing.assert_allclose(sample.boxes[0], (24, 22, 54, 52), atol=0.01)


def test_data_set_is_not_written_to(tmp_path):
    index = build_index(load_data_config(write_data_set(tmp_path, count=3)), "train")
    before = tree_hash(tmp_path)
    for i in range(3):
        bytes_of(data_set(index, cache_bytes=10**7), i)
    assert tree_hash(tmp_path) == before


def test_image_cache_is_bounded_and_drops_the_least_recently_used():
    loads = []

    def load(i):
        loads.append(i)
        return np.full((4, 5, 5), i, np.uint8)  # 100 bytes

    cache = ImageCache(250)
    for i in (0, 1, 0, 2, 0, 1):
        assert (cache.get(i, load) == i).all()
    assert loads == [0, 1, 2, 1]
    assert not cache.get(1, load).flags.writeable
    nothing = ImageCache(0)
    nothing.get(5, load)
    nothing.get(5, load)
    assert loads[-2:] == [5, 5]
