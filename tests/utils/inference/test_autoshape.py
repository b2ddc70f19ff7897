"""The Python call: the same image in any form gives the same results, alone, in lists, and in eight threads."""

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.yolo import DetectionModel
from tests.helpers.random_model import lively_model
from utils.errors import ConfigError, DataError, DetectorError
from utils.inference.autoshape import AutoShape, create_detector, load_detector
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

NAMES = ("ring", "cross", "arc")
HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module", params=["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def model(request: pytest.FixtureRequest) -> AutoShape:
    detector = AutoShape(lively_model(request.param, len(NAMES)), NAMES)
    detector.conf, detector.max_det = 0.05, 30
    return detector


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def same(first, second):
    assert len(first) == len(second) > 0
    torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=0.05)
    torch.testing.assert_close(first[:, 4:], second[:, 4:], rtol=0, atol=1e-3)


def test_every_form_of_a_image_gives_the_same(model, source, tmp_path):
    file = tmp_path / "a 细.png"
    Image.fromarray(source).save(file)
    expected = model(source, size=96)
    assert expected.s == (1, 3, 64, 96) and 0 < len(expected.pred[0]) <= 30
    with Image.open(file) as opened:
        forms = [str(file), file, opened, Image.fromarray(source), np.ascontiguousarray(source.transpose(2, 0, 1))]
        results = model(forms, size=96)
    assert results.files == ["a 细.png"] * 3 + ["image3.jpg", "image4.jpg"]
    for found, image in zip(results.pred, results.ims, strict=True):
        same(found, expected.pred[0])
        assert (image == source).all()
    other = model(np.ascontiguousarray(source[..., ::-1]), size=96).pred[0]
    assert other.shape != expected.pred[0].shape or not torch.allclose(other, expected.pred[0], atol=1e-2)


def test_results_are_the_networks_predictions_thinned_out(model, source):
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
        names = {"conf": "conf_threshold", "iou": "iou_threshold", "max_det": "max_detections"}
        nms = NmsSettings(**{names.get(k, k): v for k, v in settings.items()})
        (found,) = non_max_suppression(predictions, nms)
        result = detector(source, size=96).pred[0]
        assert result[:, 5].long().tolist() == found.classes.tolist()
        torch.testing.assert_close(result[:, 4], found.scores, rtol=0, atol=1e-3)
        limit = torch.tensor((WIDTH, HEIGHT, WIDTH, HEIGHT))
        torch.testing.assert_close(result[:, :4], found.boxes.clamp(min=0).minimum(limit), rtol=0, atol=0.05)


def test_a_tensor_goes_to_the_network_as_it_is(model, source):
    tensor = torch.from_numpy(source).permute(2, 0, 1) / 255
    expected = model(source, size=(64, 96)).pred[0]
    for form in (tensor, tensor[None], [tensor], torch.from_numpy(source).permute(2, 0, 1)):
        found = model(form)
        same(found.pred[0], expected)
        assert (found.ims[0] == source).all()
    pair = model(torch.stack((tensor, tensor.flip(2))))
    assert len(pair) == 2
    same(pair.pred[0], expected)
    same(pair.pred[1], model(np.ascontiguousarray(source[:, ::-1]), size=(64, 96)).pred[0])


def test_a_tensor_of_odd_size_is_padded_with_grey(model, source):
    cut = source[:50, :70]
    padded = np.full((64, 96, 3), 114, np.uint8)
    padded[:50, :70] = cut
    found = model(torch.from_numpy(cut.copy()).permute(2, 0, 1) / 255)
    expected = model(padded, size=(64, 96)).pred[0].clone()
    expected[:, :4] = expected[:, :4].minimum(torch.tensor((70.0, 50.0, 70.0, 50.0)))
    same(found.pred[0], expected)
    assert found.s == (1, 3, 64, 96)


def test_what_is_found_in_a_image_does_not_depend_on_its_neighbours(model, source):
    tall = np.ascontiguousarray(source.transpose(1, 0, 2))
    half = cv2.resize(source, (WIDTH // 2, HEIGHT // 2))
    tensor = torch.from_numpy(source[:32].copy()).permute(2, 0, 1) / 255
    images = [source, tall, half, tensor, source[::-1].copy(), tall] * 4  # more than one batch
    together = model(images, size=96)
    for number, one in enumerate(images[:6]):
        alone = model(one, size=96).pred[0]
        same(together.pred[number], alone)
        same(together.pred[number + 18], alone)


def test_augmentation_looks_more_often(model, source):
    seen = []
    handle = model.model.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    found = model(source, size=96, augment=True)
    handle.remove()
    assert len(seen) == 3 and len(found.pred[0])


def test_eight_threads_find_what_one_finds(model, source):
    rng = np.random.default_rng(3)
    images = [cv2.resize(source, (int(w), int(h))) for h, w in rng.integers(20, 90, (16, 2))]
    serial = [model(one, size=96).pred[0] for one in images]
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        return [model(images[(number + step) % 16], size=96).pred[0] for step in range(4)]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(work, range(8))):
            for step, one in enumerate(found):
                assert torch.equal(one, serial[(number + step) % 16])


def test_exif_and_transparency_are_seen_as_in_files(model, source, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(source).save(tmp_path / "turned.png", exif=exif)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:30] = 0
    Image.fromarray(np.concatenate((source, alpha), 2)).save(tmp_path / "clear.png")
    black = np.where(alpha, source, 0).astype(np.uint8)
    for name, expected in (("turned", np.rot90(source, -1)), ("clear", black)):
        with Image.open(tmp_path / f"{name}.png") as opened:
            results = model([tmp_path / f"{name}.png", opened, np.ascontiguousarray(expected)], size=96)
        assert all((image == expected).all() for image in results.ims)
    assert (model([np.concatenate((source, alpha), 2)], size=96).ims[0] == black).all()
    grey = source[..., 0]
    assert all((im == grey[..., None]).all() for im in model([grey, Image.fromarray(grey)], size=96).ims)
    deep = source.astype(np.uint16) * 257
    assert (model(deep, size=96).ims[0] == source).all()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("missing.jpg", "cannot be read"),
        (np.zeros((6, 5, 7), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (torch.zeros(4, 8, 8), "shape"),
        (torch.full((3, 8, 8), 2.0), r"not in \[0, 1\]"),
        (torch.full((3, 8, 8), float("nan")), r"not in \[0, 1\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
        (7, "unsupported type"),
        (["missing.jpg"], "cannot be read"),
        ([[1, 2]], "unsupported type"),
    ],
)
def test_what_is_no_image_gets_one_line(model, item, message):
    with pytest.raises(DataError, match=message) as caught:
        model(item)
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("conf", 1.5), ("iou", 0), ("max_det", 0), ("size", (1, 2, 3)), ("size", 0)]
)
def test_settings_out_of_range_are_refused(source, name, value):
    detector = AutoShape(lively_model("yolov5n.yaml", len(NAMES)), NAMES)
    size = value if name == "size" else 640
    if name != "size":
        setattr(detector, name, value)
    with pytest.raises(ConfigError, match="must be"):
        detector(source, size=size)


@pytest.fixture(scope="module")
def server(source: np.ndarray) -> Iterator[str]:
    """A web server with an image, a redirection into the file system, and something too large."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to-file"):
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
            elif self.path.startswith("/a"):
                data = cv2.imencode(".png", source[..., ::-1])[1].tobytes()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(data)
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_web_address_is_refused_unless_allowed(source, server, monkeypatch):
    detector = AutoShape(lively_model("yolov5n.yaml", len(NAMES)), NAMES)
    with pytest.raises(DataError, match=r"is not fetched by default\. Fix: save the file or set allow_urls\.$"):
        detector(f"{server}/a.png")
    detector.allow_urls = True
    result = detector(f"{server}/a.png?size=1")
    assert (result.ims[0] == source).all() and result.files == ["a.png"]
    for path, message in (("to-file", "cannot be fetched"), ("nothing", "Not Found")):
        with pytest.raises(DataError, match=message):
            detector(f"{server}/{path}")
    monkeypatch.setattr("utils.inference.inputs.MAX_DOWNLOAD_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        detector(f"{server}/a.png")


def test_a_checkpoint_is_loaded_ready_to_call(model, source, tmp_path):
    plain = lively_model(model.model.config.name, len(NAMES))
    weights = tmp_path / "best.pt"
    save_checkpoint(weights, {**describe_model(plain, NAMES), "ema": weights_of(plain)})
    detector = load_detector(weights, device="cpu")
    detector.conf, detector.max_det = model.conf, model.max_det
    assert detector.names == dict(enumerate(NAMES)) and detector.stride == 32
    same(detector(source, size=96).pred[0], model(source, size=96).pred[0])
    bare = load_detector(weights, device="cpu", autoshape=False)
    assert isinstance(bare, DetectionModel) and not bare.training
    again = create_detector(model.model.config.name, weights=weights, device="cpu")
    assert list(again.names.values()) == list(NAMES)
    again.conf, again.max_det = model.conf, model.max_det
    same(again(source, size=96).pred[0], model(source, size=96).pred[0])


def test_a_model_is_built_with_the_classes_asked_for():
    detector = create_detector("yolov5n-akconv.yaml", classes=2, device="cpu")
    assert detector.names == {0: "class0", 1: "class1"} and detector.model.num_classes == 2
    bare = create_detector("yolov5n.yaml", channels=1, classes=2, device="cpu", autoshape=False)
    assert bare(torch.zeros(1, 1, 64, 64))[0].shape == (1, 252, 7)
    for wrong in (
        {"cfg": "yolov5q.yaml"},
        {"cfg": "yolov5n.yaml", "channels": 1},
        {"cfg": "yolov5n.yaml", "device": "9"},
    ):
        with pytest.raises(DetectorError, match="Fix: "):
            create_detector(**{"device": "cpu", **wrong})
