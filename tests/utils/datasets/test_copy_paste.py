"""Copy-paste: mirrored cut-outs of outlined objects, where they cover less than 30 % of any box."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import slow_iou, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.copy_paste import copy_paste, ioa
from utils.datasets.dataset import Augmentation, DetectionDataset, SampleKey
from utils.datasets.index import build_index
from utils.structures import Polygons, Sample

HEIGHT, WIDTH = 60, 100


def outlined(boxes, rings, colours):
    """A grey image with filled upright rectangles; rings of () leave an object with its box only."""
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


def test_chosen_object_appears_mirrored_with_box_class_and_outline():
    box = (10, 5, 30, 25)
    triangle = [(10, 5), (30, 5), (10, 25)]
    sample = outlined([box], [triangle], [(200, 10, 20)])
    before = sample.image.copy()
    result = copy_paste(sample, np.array([True]))
    assert result.boxes.tolist() == [list(box), [70, 5, 90, 25]] and result.classes.tolist() == [3, 3]
    assert result.polygons.of(1).tolist() == [[90, 5], [70, 5], [90, 25]]
    pasted = (result.image == (200, 10, 20)).all(-1)
    pasted[:, :50] = False
    assert pasted[6, 71:90].all() and pasted[23, 88:90].all() and not pasted[23, 70:85].any()
    assert abs(int(pasted.sum()) - 200) <= 25, "half the square"
    assert np.array_equal(sample.image, before) and np.array_equal(result.image[:, :50], before[:, :50])


def test_pasted_pixels_are_the_objects_own_mirrored():
    rng = np.random.default_rng(0)
    box = (12, 8, 41, 50)
    sample = outlined([box], [corners(*box)], [(0, 0, 0)])
    sample.image[:] = rng.integers(0, 256, sample.image.shape, dtype=np.uint8)
    result = copy_paste(sample, np.array([True]))
    assert np.array_equal(result.image[9:49, 60:87], sample.image[9:49, 13:40][:, ::-1])


@pytest.mark.parametrize(("covered", "pasted"), [(5, True), (6, False), (20, False)])
def test_nothing_is_pasted_over_30_percent_of_a_box(covered, pasted):
    moving, standing = (10, 10, 30, 30), (90 - covered, 10, 110 - covered, 30)  # the copy lies at 70 to 90
    sample = outlined([moving, standing], [corners(*moving), ()], [(200, 0, 0), (0, 200, 0)])
    share = ioa(np.array((70, 10, 90, 30), np.float32), sample.boxes)[1]
    assert share == pytest.approx(covered / 20) and bool(share < 0.3) == pasted
    assert len(copy_paste(sample, np.array([True, True])).boxes) == 2 + pasted


def test_copies_do_not_cover_each_other():
    boxes = [(10, 10, 30, 30), (12, 10, 32, 30)]
    sample = outlined(boxes, [corners(*box) for box in boxes], [(200, 0, 0), (0, 200, 0)])
    result = copy_paste(sample, np.array([True, True]))
    assert result.boxes[2:].tolist() == [[70, 10, 90, 30]] and len(result.polygons) == 3


def test_objects_with_only_a_box_or_not_chosen_stay_alone():
    boxes = [(5, 5, 20, 20), (5, 30, 20, 50)]
    sample = outlined(boxes, [corners(*boxes[0]), ()], [(200, 0, 0), (0, 200, 0)])
    assert copy_paste(sample, np.array([False, True])) is sample
    assert copy_paste(sample, np.array([False, False])) is sample
    boxed = Sample(image=sample.image, boxes=sample.boxes, classes=sample.classes)
    assert copy_paste(boxed, np.array([True, True])) is boxed


def test_random_pastes_keep_the_rule_against_a_slow_check():
    rng = np.random.default_rng(3)
    added = 0
    for _ in range(40):
        boxes = []
        for _ in range(6):
            x1, y1 = (int(v) for v in rng.integers(0, (80, 45)))
            boxes.append((x1, y1, x1 + int(rng.integers(3, 20)), y1 + int(rng.integers(3, 15))))
        sample = outlined(boxes, [corners(*box) for box in boxes], rng.integers(0, 256, (6, 3)))
        result = copy_paste(sample, rng.random(6) < 0.7)
        added += len(result.boxes) - 6
        for number in range(6, len(result.boxes)):
            for other in result.boxes[:number]:
                area = (other[2] - other[0]) * (other[3] - other[1])
                own = np.prod(result.boxes[number][2:] - result.boxes[number][:2])
                iou = slow_iou(result.boxes[number], other)
                assert iou * (area + own) / (1 + iou) < 0.3 * area + 1e-3
    assert added > 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images with an outlined bright ellipse each, and one with a box beside it."""
    root = tmp_path_factory.mktemp("outlined")
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for number in range(6):
        height, width = 70 + number, 96
        centre, radii = rng.uniform((22, 20), (35, 50)), rng.uniform((8, 8), (18, 16))
        points = np.stack((np.cos(angle), np.sin(angle)), 1) * radii + centre
        y, x = np.mgrid[:height, :width] + 0.5
        image = np.full((height, width, 3), 20, np.uint8)
        image[((np.stack((x, y), -1) - centre) ** 2 / radii**2).sum(-1) < 1] = 255
        Image.fromarray(image).save(root / f"images/train/p{number}.png")
        row = "0 " + " ".join(f"{v:.6f}" for v in (points / (width, height)).reshape(-1))
        (root / f"labels/train/p{number}.txt").write_text(f"{row}\n1 .9 .9 .1 .1\n")
    write_yaml(root, "train: images/train\nnames: [disc, corner]\n")
    return root


def dataset_of(root, **augmentation):
    index = build_index(load_data_config(str(root / "data.yaml")), "train", use_cache=False)
    return DetectionDataset(index, image_size=96, augmentation=Augmentation(**augmentation), seed=5)


def samples_of(dataset, epochs=3):
    refs = [SampleKey(index=i, epoch=e, size_hw=(96, 96)) for e in range(epochs) for i in range(len(dataset))]
    return [dataset[ref].sample for ref in refs]


def test_augmented_outlined_objects_have_the_box_of_their_pixels(root):
    options = {"degrees": 40, "translate": 0.1, "scale": 0.3, "shear": 5, "fliplr": 0.5, "flipud": 0.5}
    checked = 0
    for sample in samples_of(dataset_of(root, **options), epochs=6):
        discs = sample.boxes[sample.classes == 0]
        if len(discs) == 1:
            rows, columns = np.nonzero(sample.image.min(-1) > 140)
            seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(discs[0], seen, atol=1.6)
            checked += 1
    assert checked > 25


def test_copy_paste_adds_objects_that_lie_on_their_pixels(root):
    plain, more = (samples_of(dataset_of(root, copy_paste=p)) for p in (0.0, 1.0))
    assert sum(len(s.boxes) for s in more) == sum(len(s.boxes) for s in plain) + len(plain)
    for sample in more:
        for box in sample.boxes[sample.classes == 0]:
            x1, y1, x2, y2 = box.round().astype(int)
            assert (sample.image[y1:y2, x1:x2].min(-1) > 140).mean() > 0.65, "an ellipse fills pi / 4 of its box"


def test_mosaic_with_copy_paste_is_a_pure_function_of_seed_epoch_and_number(root):
    options = {"mosaic": 1.0, "mixup": 0.5, "copy_paste": 0.5, "scale": 0.5, "translate": 0.1, "fliplr": 0.5}
    first = samples_of(dataset_of(root, **options))
    again = samples_of(dataset_of(root, **options))[::-1]
    for one, other in zip(first, again[::-1], strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first[:6], first[6:12], strict=True))
    for sample in first:
        assert (sample.boxes >= 0).all() and (sample.boxes <= 96).all()
        assert len(sample.boxes) == len(sample.classes) == len(sample.polygons)


def test_the_share_pasted_is_the_probability(root):
    few, many = (sum(len(s.boxes) for s in samples_of(dataset_of(root, copy_paste=p), epochs=20)) for p in (0.2, 0.8))
    assert 240 + 10 <= few <= 240 + 40 and 240 + 80 <= many <= 240 + 112


def test_box_labels_draw_nothing_for_copy_paste(tmp_path, root):
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for number in range(6):
        data = (root / f"images/train/p{number}.png").read_bytes()
        (tmp_path / f"images/train/p{number}.png").write_bytes(data)
        (tmp_path / f"labels/train/p{number}.txt").write_text("0 .3 .5 .3 .4\n1 .9 .9 .1 .1\n")
    write_yaml(tmp_path, "train: images/train\nnames: [disc, corner]\n")
    options = {"mosaic": 0.5, "scale": 0.5, "translate": 0.1, "fliplr": 0.5, "hsv_v": 0.4}
    without, wanted = (samples_of(dataset_of(tmp_path, **options, copy_paste=p)) for p in (0.0, 1.0))
    for one, other in zip(without, wanted, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)
        assert one.polygons is None
