"""Copy-paste: mirrored copies of objects with polygons, where they cover less than 30 % of any box."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import slow_iou, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.copy_paste import copy_paste, ioa
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.datasets.index import build_index
from utils.datasets.transforms import Augmentation
from utils.structures import Polygons, Sample

HEIGHT, WIDTH = 60, 100


def sample_with(boxes, rings, colours):
    """A grey image with filled rectangles; an object with the ring () has only a box."""
    image = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        image[y1:y2, x1:x2] = colour
    rings = [np.array(ring, np.float32).reshape(-1, 2) for ring in rings]
    polygons = Polygons(points=np.concatenate(rings), starts=np.cumsum([0, *map(len, rings)], dtype=np.int64))
    return Sample(
        image=image,
        boxes=np.array(boxes, np.float32),
        classes=np.arange(len(boxes), dtype=np.int64) + 3,
        polygons=polygons,
    )


def corners(x1, y1, x2, y2):
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def test_selected_object_is_pasted_mirrored_with_box_class_and_polygon():
    box = (10, 5, 30, 25)
    triangle = [(10, 5), (30, 5), (10, 25)]
    sample = sample_with([box], [triangle], [(200, 10, 20)])
    before = sample.image.copy()
    result = copy_paste(sample, np.array([True]))
    assert result.boxes.tolist() == [list(box), [70, 5, 90, 25]] and result.classes.tolist() == [3, 3]
    assert result.polygons.of(1).tolist() == [[90, 5], [70, 5], [90, 25]]
    pasted = (result.image == (200, 10, 20)).all(-1)
    pasted[:, :50] = False
    assert pasted[6, 71:90].all() and pasted[23, 88:90].all() and not pasted[23, 70:85].any()
    assert abs(int(pasted.sum()) - 200) <= 25, "half the square"
    assert np.array_equal(sample.image, before) and np.array_equal(result.image[:, :50], before[:, :50])


def test_pasted_pixels_are_those_of_the_object_mirrored():
    rng = np.random.default_rng(0)
    box = (12, 8, 41, 50)
    sample = sample_with([box], [corners(*box)], [(0, 0, 0)])
    sample.image[:] = rng.integers(0, 256, sample.image.shape, dtype=np.uint8)
    result = copy_paste(sample, np.array([True]))
    assert np.array_equal(result.image[9:49, 60:87], sample.image[9:49, 13:40][:, ::-1])


@pytest.mark.parametrize(("covered", "pasted"), [(5, True), (6, False), (20, False)])
def test_nothing_is_pasted_over_30_percent_or_more_of_a_box(covered, pasted):
    copied, other = (10, 10, 30, 30), (90 - covered, 10, 110 - covered, 30)  # the copy is at 70 to 90
    sample = sample_with([copied, other], [corners(*copied), ()], [(200, 0, 0), (0, 200, 0)])
    covered_fraction = ioa(np.array((70, 10, 90, 30), np.float32), sample.boxes)[1]
    assert covered_fraction == pytest.approx(covered / 20) and bool(covered_fraction < 0.3) == pasted
    assert len(copy_paste(sample, np.array([True, True])).boxes) == 2 + pasted


def test_copies_do_not_cover_each_other():
    boxes = [(10, 10, 30, 30), (12, 10, 32, 30)]
    sample = sample_with(boxes, [corners(*box) for box in boxes], [(200, 0, 0), (0, 200, 0)])
    result = copy_paste(sample, np.array([True, True]))
    assert result.boxes[2:].tolist() == [[70, 10, 90, 30]] and len(result.polygons) == 3


def test_objects_with_only_a_box_or_not_selected_are_not_copied():
    boxes = [(5, 5, 20, 20), (5, 30, 20, 50)]
    sample = sample_with(boxes, [corners(*boxes[0]), ()], [(200, 0, 0), (0, 200, 0)])
    assert copy_paste(sample, np.array([False, True])) is sample
    assert copy_paste(sample, np.array([False, False])) is sample
    without_polygons = Sample(image=sample.image, boxes=sample.boxes, classes=sample.classes)
    assert copy_paste(without_polygons, np.array([True, True])) is without_polygons


def test_random_copies_obey_the_limit_of_a_slow_reference():
    rng = np.random.default_rng(3)
    added = 0
    for _ in range(40):
        boxes = []
        for _ in range(6):
            x1, y1 = (int(v) for v in rng.integers(0, (80, 45)))
            boxes.append((x1, y1, x1 + int(rng.integers(3, 20)), y1 + int(rng.integers(3, 15))))
        sample = sample_with(boxes, [corners(*box) for box in boxes], rng.integers(0, 256, (6, 3)))
        result = copy_paste(sample, rng.random(6) < 0.7)
        added += len(result.boxes) - 6
        for i in range(6, len(result.boxes)):
            for other in result.boxes[:i]:
                area = (other[2] - other[0]) * (other[3] - other[1])
                copy_area = np.prod(result.boxes[i][2:] - result.boxes[i][:2])
                iou = slow_iou(result.boxes[i], other)
                assert iou * (area + copy_area) / (1 + iou) < 0.3 * area + 1e-3
    assert added > 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images with a bright ellipse, labelled by a polygon, and a second object labelled by a box."""
    root = tmp_path_factory.mktemp("polygons")
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for i in range(6):
        height, width = 70 + i, 96
        centre, radii = rng.uniform((22, 20), (35, 50)), rng.uniform((8, 8), (18, 16))
        points = np.stack((np.cos(angle), np.sin(angle)), 1) * radii + centre
        y, x = np.mgrid[:height, :width] + 0.5
        image = np.full((height, width, 3), 20, np.uint8)
        image[((np.stack((x, y), -1) - centre) ** 2 / radii**2).sum(-1) < 1] = 255
        Image.fromarray(image).save(root / f"images/train/p{i}.png")
        row = "0 " + " ".join(f"{v:.6f}" for v in (points / (width, height)).reshape(-1))
        (root / f"labels/train/p{i}.txt").write_text(f"{row}\n1 .9 .9 .1 .1\n")
    write_yaml(root, "train: images/train\nnames: [disc, corner]\n")
    return root


def dataset_of(root, **augmentation):
    index = build_index(load_data_config(str(root / "data.yaml")), "train", use_cache=False)
    return DetectionDataset(index, image_size=96, augmentation=Augmentation(**augmentation), seed=5)


def samples_of(dataset, epochs=3):
    keys = [SampleKey(index=i, epoch=e, size_hw=(96, 96)) for e in range(epochs) for i in range(len(dataset))]
    return [dataset[key].sample for key in keys]


def test_augmented_polygons_have_the_box_of_their_pixels(root):
    options = {"degrees": 40, "translate": 0.1, "scale": 0.3, "shear": 5, "fliplr": 0.5, "flipud": 0.5}
    checked = 0
    for sample in samples_of(dataset_of(root, **options), epochs=6):
        discs = sample.boxes[sample.classes == 0]
        if len(discs) == 1:
            rows, columns = np.nonzero(sample.image.min(-1) > 140)
            visible = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(discs[0], visible, atol=1.6)
            checked += 1
    assert checked > 25


def test_boxes_of_pasted_objects_are_on_their_pixels(root):
    without, pasted = (samples_of(dataset_of(root, copy_paste=p)) for p in (0.0, 1.0))
    assert sum(len(s.boxes) for s in pasted) == sum(len(s.boxes) for s in without) + len(without)
    for sample in pasted:
        for box in sample.boxes[sample.classes == 0]:
            x1, y1, x2, y2 = box.round().astype(int)
            assert (sample.image[y1:y2, x1:x2].min(-1) > 140).mean() > 0.65, "an ellipse fills pi / 4 of its box"


def test_mosaic_with_copy_paste_is_a_pure_function_of_seed_epoch_and_index(root):
    options = {"mosaic": 1.0, "mixup": 0.5, "copy_paste": 0.5, "scale": 0.5, "translate": 0.1, "fliplr": 0.5}
    first = samples_of(dataset_of(root, **options))
    again = samples_of(dataset_of(root, **options))[::-1]
    for one, other in zip(first, again[::-1], strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first[:6], first[6:12], strict=True))
    for sample in first:
        assert (sample.boxes >= 0).all() and (sample.boxes <= 96).all()
        assert len(sample.boxes) == len(sample.classes) == len(sample.polygons)


def test_pasted_fraction_is_the_probability(root):
    few, many = (sum(len(s.boxes) for s in samples_of(dataset_of(root, copy_paste=p), epochs=20)) for p in (0.2, 0.8))
    assert 240 + 10 <= few <= 240 + 40 and 240 + 80 <= many <= 240 + 112


def test_copy_paste_of_box_labels_draws_nothing(tmp_path, root):
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for i in range(6):
        data = (root / f"images/train/p{i}.png").read_bytes()
        (tmp_path / f"images/train/p{i}.png").write_bytes(data)
        (tmp_path / f"labels/train/p{i}.txt").write_text("0 .3 .5 .3 .4\n1 .9 .9 .1 .1\n")
    write_yaml(tmp_path, "train: images/train\nnames: [disc, corner]\n")
    options = {"mosaic": 0.5, "scale": 0.5, "translate": 0.1, "fliplr": 0.5, "hsv_v": 0.4}
    without, requested = (samples_of(dataset_of(tmp_path, **options, copy_paste=p)) for p in (0.0, 1.0))
    for one, other in zip(without, requested, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)
        assert one.polygons is None
