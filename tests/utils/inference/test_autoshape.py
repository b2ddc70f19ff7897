"""The Python API: the same image in any form gives the same results, alone, in lists, and in eight threads."""

import copy
import gc
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.yolo import DetectionModel
from tests.helpers.random_model import random_model
from utils.errors import ConfigError, DataError, DetectorError
from utils.inference.autoshape import AutoShape, create_detector, load_detector
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

NAMES = ("ring", "cross", "arc")
HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module", params=["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def model(request: pytest.FixtureRequest) -> AutoShape:
    detector = AutoShape(random_model(request.param, len(NAMES)), NAMES)
    detector.conf, detector.max_det = 0.05, 30
    return detector


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def assert_same(first, second):
    assert len(first) == len(second) > 0
    torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=0.05)
    torch.testing.assert_close(first[:, 4:], second[:, 4:], rtol=0, atol=1e-3)


def test_every_form_of_an_image_gives_the_same_results(model, source, tmp_path):
    file = tmp_path / "a 细.png"
    Image.fromarray(source).save(file)
    expected = model(source, size=96)
    assert expected.s == (1, 3, 64, 96) and 0 < len(expected.pred[0]) <= 30
    with Image.open(file) as opened:
        items = [str(file), file, opened, Image.fromarray(source), np.ascontiguousarray(source.transpose(2, 0, 1))]
        results = model(items, size=96)
    assert results.files == ["a 细.png"] * 3 + ["image3.jpg", "image4.jpg"]
    for rows, image in zip(results.pred, results.ims, strict=True):
        assert_same(rows, expected.pred[0])
        assert (image == source).all()
    other = model(np.ascontiguousarray(source[..., ::-1]), size=96).pred[0]
    assert other.shape != expected.pred[0].shape or not torch.allclose(other, expected.pred[0], atol=1e-2)


def test_calls_leave_nothing_behind(model, source):
    def objects_after(calls: int) -> int:
        for _ in range(calls):
            model([source, Image.fromarray(source)], size=96)
        gc.collect()
        return len(gc.get_objects())

    objects_after(5)
    assert objects_after(20) == objects_after(20)


def test_results_are_the_models_predictions_after_nms(model, source):
    batch = torch.from_numpy(source).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        predictions = model.model(batch)[0]
    detector = copy.copy(model)
    for settings in (
        {"conf": 0.05, "iou": 0.45, "max_det": 30},
        {"conf": 0.2, "iou": 0.7, "max_det": 7},
        {"conf": 0.05, "iou": 0.3, "max_det": 50, "agnostic": True},
        {"conf": 0.05, "iou": 0.45, "max_det": 50, "multi_label": True},
        {"conf": 0.05, "iou": 0.45, "max_det": 50, "classes": [0, 2]},
    ):
        for name, value in {"agnostic": False, "multi_label": False, "classes": None, **settings}.items():
            setattr(detector, name, value)
        fields = {"conf": "conf_threshold", "iou": "iou_threshold", "max_det": "max_detections"}
        nms = NmsSettings(**{fields.get(k, k): v for k, v in settings.items()})
        (detections,) = non_max_suppression(predictions, nms)
        result = detector(source, size=96).pred[0]
        assert result[:, 5].long().tolist() == detections.classes.tolist()
        assert result[:, 4].numpy() == pytest.approx(detections.scores, rel=0, abs=1e-3)
        inside = detections.boxes.clip(0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
        assert result[:, :4].numpy() == pytest.approx(inside, rel=0, abs=0.05)


def test_a_tensor_is_not_resized(model, source):
    tensor = torch.from_numpy(source).permute(2, 0, 1) / 255
    expected = model(source, size=(64, 96)).pred[0]
    for item in (tensor, tensor[None], [tensor], torch.from_numpy(source).permute(2, 0, 1)):
        results = model(item)
        assert_same(results.pred[0], expected)
        assert (results.ims[0] == source).all()
    pair = model(torch.stack((tensor, tensor.flip(2))))
    assert len(pair) == 2
    assert_same(pair.pred[0], expected)
    assert_same(pair.pred[1], model(np.ascontiguousarray(source[:, ::-1]), size=(64, 96)).pred[0])


def test_a_tensor_of_odd_size_is_padded_with_grey(model, source):
    cut = source[:50, :70]
    padded = np.full((64, 96, 3), 114, np.uint8)
    padded[:50, :70] = cut
    results = model(torch.from_numpy(cut.copy()).permute(2, 0, 1) / 255)
    expected = model(padded, size=(64, 96)).pred[0].clone()
    expected[:, :4] = expected[:, :4].minimum(torch.tensor((70.0, 50.0, 70.0, 50.0)))
    assert_same(results.pred[0], expected)
    assert results.s == (1, 3, 64, 96)


def test_detections_of_an_image_do_not_depend_on_the_others(model, source):
    tall = np.ascontiguousarray(source.transpose(1, 0, 2))
    half = cv2.resize(source, (WIDTH // 2, HEIGHT // 2))
    tensor = torch.from_numpy(source[:32].copy()).permute(2, 0, 1) / 255
    images = [source, tall, half, tensor, source[::-1].copy(), tall] * 4  # more than one batch
    together = model(images, size=96)
    for index, image in enumerate(images[:6]):
        alone = model(image, size=96).pred[0]
        assert_same(together.pred[index], alone)
        assert_same(together.pred[index + 18], alone)


def test_augmentation_runs_the_model_at_three_scales(model, source):
    shapes = []
    handle = model.model.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    results = model(source, size=96, augment=True)
    handle.remove()
    assert len(shapes) == 3 and len(results.pred[0])


def test_eight_threads_get_what_one_gets(model, source):
    rng = np.random.default_rng(3)
    images = [cv2.resize(source, (int(w), int(h))) for h, w in rng.integers(20, 90, (16, 2))]
    serial = [model(one, size=96).pred[0] for one in images]
    start = threading.Barrier(8)

    def work(worker):
        start.wait()
        return [model(images[(worker + step) % 16], size=96).pred[0] for step in range(4)]

    with ThreadPoolExecutor(8) as pool:
        for worker, results in enumerate(pool.map(work, range(8))):
            for step, rows in enumerate(results):
                assert torch.equal(rows, serial[(worker + step) % 16])


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("conf", 1.5, "--conf-thres"),
        ("iou", 0, "--iou-thres"),
        ("max_det", 0, "--max-det"),
        ("size", (1, 2, 3), "size"),
        ("size", 0, "size"),
    ],
)
def test_settings_out_of_range_are_rejected(source, name, value, where):
    detector = AutoShape(random_model("yolov5n.yaml", len(NAMES)), NAMES)
    size = value if name == "size" else 640
    if name != "size":
        setattr(detector, name, value)
    with pytest.raises(ConfigError) as error:
        detector(source, size=size)
    assert error.value.where == where and str(value) in error.value.what


@pytest.mark.parametrize(
    "size",
    [np.int64(64), 64.0, (np.int64(64), 64), np.array([64, 64]), [64, 64.0], torch.tensor(64), np.float32(64), "frame"],
)
def test_a_size_is_a_whole_number_of_any_library(model, source, size):
    if isinstance(size, str):
        size = pytest.importorskip("pandas").Series([64, 64])
    assert model(source, size=size).s == model(source, size=64).s


@pytest.mark.parametrize(
    ("name", "value", "plain_value"),
    [("classes", np.int64(1), [1]), ("classes", np.array([1]), [1]), ("classes", torch.tensor([1]), [1]),
     ("max_det", np.int64(3), 3), ("max_det", 3.0, 3),
     ("conf", np.float32(0.25), 0.25), ("iou", torch.tensor(0.5), 0.5)],
)  # fmt: skip
def test_settings_are_numbers_of_any_library(model, source, name, value, plain_value):
    detector, plain = copy.copy(model), copy.copy(model)
    setattr(detector, name, value)
    setattr(plain, name, plain_value)
    assert torch.equal(detector(source, size=96).pred[0], plain(source, size=96).pred[0])


@pytest.mark.parametrize("size", ["64", True, None, math.nan, math.inf, 64.5, (64,) * 3, (), -1, 0, 10**30, 9999])
def test_a_size_that_is_none_is_one_line(model, source, size):
    with pytest.raises(ConfigError) as error:
        model(source, size=size)
    assert error.value.where == "size" and len(str(error.value).splitlines()) == 1


def test_web_addresses_are_fetched_only_if_allowed():
    detector = AutoShape(random_model("yolov5n.yaml", len(NAMES)), NAMES)
    for allowed in (False, True):
        detector.allow_urls = allowed
        with pytest.raises(DataError) as error:
            detector("http://127.0.0.1:9/a.png")  # the discard port: nothing answers
        assert ("allow_urls" in error.value.fix) == (not allowed)


def test_a_checkpoint_is_loaded_ready_to_call(model, source, tmp_path):
    plain = random_model(model.model.config.name, len(NAMES))
    weights = tmp_path / "best.pt"
    save_checkpoint(weights, {**describe_model(plain, NAMES), "ema": weights_of(plain)})
    detector = load_detector(weights, device="cpu")
    detector.conf, detector.max_det = model.conf, model.max_det
    assert detector.names == dict(enumerate(NAMES)) and detector.stride == 32
    assert_same(detector(source, size=96).pred[0], model(source, size=96).pred[0])
    bare = load_detector(weights, device="cpu", autoshape=False)
    assert isinstance(bare, DetectionModel) and not bare.training
    created = create_detector(model.model.config.name, weights=weights, device="cpu")
    assert list(created.names.values()) == list(NAMES)
    created.conf, created.max_det = model.conf, model.max_det
    assert_same(created(source, size=96).pred[0], model(source, size=96).pred[0])


def test_a_model_is_built_with_the_requested_classes():
    detector = create_detector("yolov5n-akconv.yaml", classes=2, device="cpu")
    assert detector.names == {0: "class0", 1: "class1"} and detector.model.num_classes == 2
    bare = create_detector("yolov5n.yaml", channels=1, classes=2, device="cpu", autoshape=False)
    assert bare(torch.zeros(1, 1, 64, 64))[0].shape == (1, 252, 7)
    for wrong in (
        {"cfg": "yolov5q.yaml"},
        {"cfg": "yolov5n.yaml", "channels": 1},
        {"cfg": "yolov5n.yaml", "device": "9"},
    ):
        with pytest.raises(DetectorError) as error:
            create_detector(**{"device": "cpu", **wrong})
        assert error.value.fix
