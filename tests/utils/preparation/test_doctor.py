"""Each fault planted once is found, counted and located; a clean set has no finding that spoils a result."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.faulty_data import HEIGHT, WIDTH, FaultySet, drawn_image
from utils.datasets.images import read_image
from utils.errors import ConfigError, DataError
from utils.files import PROJECT_ROOT
from utils.options import PrepareOptions
from utils.preparation.doctor import run_check
from utils.preparation.kinds import KINDS, SUSPECTS


def check(data: FaultySet, **options) -> tuple[int, dict[str, dict]]:
    """Return the exit code, and the findings of check.json by kind; the largest if a kind occurs more than once."""
    project = data.folder.parent / f"{data.folder.name}-check"
    shutil.rmtree(project, ignore_errors=True)
    code = run_check(PrepareOptions(source=str(data.yaml), check=True, project=str(project), **options))
    content = json.loads((project / "exp/check.json").read_text(encoding="utf-8"))
    assert content["spoils"] is (code == 1)
    found = {f["kind"]: f for f in sorted(content["findings"], key=lambda f: f["count"])}
    return code, found


def recompressed(path: Path) -> np.ndarray:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 60])
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


def enlarged(path: Path) -> np.ndarray:
    return cv2.resize(read_image(path), None, fx=1.6, fy=1.6)


def copy_image(data: FaultySet, to_split: str) -> None:
    for source, target in ((data.image, data.image), (data.label, data.label)):
        shutil.copy(source("train", 3), target(to_split, "copy"))


def list_with_one_missing(data: FaultySet) -> None:
    names = [*(f"images/train/{index}.png" for index in range(16)), "images/gone/gone.png"]
    (data.folder / "train.txt").write_text("\n".join(names))
    data.write_yaml(train="train.txt")


def pixel_values(row: list[float]) -> list[float]:
    c, x, y, w, h = row
    return [c, x * WIDTH, y * HEIGHT, w * WIDTH, h * HEIGHT]


def corners(c: float, x: float, y: float, w: float, h: float) -> list[float]:
    return [c, x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def save(data: FaultySet, image: Image.Image, name: str, rows: list[list[float]] | None = None, **options) -> Path:
    path = data.folder / "images/train" / name
    image.save(path, **options)
    data.write_rows("train", path.stem, rows or [])
    return path


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def pillow(seed: int, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    pixels, _ = drawn_image(np.random.default_rng(seed))
    return Image.fromarray(pixels).resize(size).convert(mode)


def test_a_clean_set_has_no_findings(tmp_path: Path) -> None:
    code, found = check(FaultySet(tmp_path / "set"))
    assert (code, found) == (0, {})


Plant = Callable[[FaultySet], object]
# Kind of finding -> how to plant it, exit code, count, what the first example's path and words contain.
FAULTS: dict[str, tuple[Plant, int, int, str, str]] = {
    "leak-identical": (lambda d: copy_image(d, "val"), 1, 1, "train/3.png", "val: copy.png"),
    "leak-near-identical": (
        lambda d: d.write("val", "jpeg", recompressed(d.image("train", 3)), d.rows("train", 3)),
        *(1, 1, "train/3.png", "val: jpeg.png"),
    ),
    "duplicates-identical": (lambda d: copy_image(d, "train"), 0, 1, "3.png", "copy.png"),
    "duplicates-near-identical": (
        lambda d: d.write("train", "jpeg", recompressed(d.image("train", 3)), d.rows("train", 3)),
        *(0, 1, "3.png", "jpeg.png"),
    ),
    "image-missing": (lambda d: list_with_one_missing(d), 0, 1, "images/gone/gone.png", "not exist"),
    "class-fractions-differ": (
        lambda d: [d.write_rows("val", i, d.rows("val", i)[:1] * 5 + d.rows("val", i)) for i in range(12)],
        *(0, 1, "", "val: car"),
    ),
    "splits-equal": (lambda d: d.write_yaml(val="images/train"), 1, 16, "train/0.png", ""),
    "leak-same-file": (lambda d: d.write_yaml(val=["images/val", "images/train/5.png"]), 1, 1, "train/5.png", ""),
    "split-missing": (lambda d: d.write_yaml(val=""), 1, 1, "", ""),
    "images-without-labels": (lambda d: d.label("train", 4).unlink(), 0, 1, "train/4.png", "labels/train/4.txt"),
    "labels-without-image": (lambda d: d.write_rows("train", "x", d.rows("train", 1)), 0, 1, "labels/train/x.txt", ""),
    "split-without-objects": (
        lambda d: [p.write_text("") for p in (d.folder / "labels/val").iterdir()],
        *(1, 1, "", ""),
    ),
    "values-out-of-range": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [1, 1.25, 0.5, 0.1, 0.1]]),
        *(0, 1, "train/2.png", "line 4: 1.25 0.5 0.1 0.1"),
    ),
    "boxes-beyond-image": (
        lambda d: d.write_rows("train", 2, [[1, 0.95, 0.5, 0.3, 0.1], *d.rows("train", 2)]),
        *(0, 1, "train/2.png", f"line 1: {0.1 * WIDTH:.0f} pixels"),
    ),
    "boxes-tiny": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [1, 0.5, 0.05, 0.2, 1 / HEIGHT]]),
        *(0, 1, "train/2.png", "line 4"),
    ),
    "boxes-whole-image": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [1, 0.5, 0.5, 0.99, 0.98]]),
        *(0, 1, "train/2.png", "line 4: 97.0%"),
    ),
    "boxes-without-area": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [1, 0.5, 0.5, 0, 0.1]]),
        *(0, 1, "train/2.png", "line 4"),
    ),
    "rows-repeated": (
        lambda d: d.write_rows("train", 2, d.rows("train", 2) + d.rows("train", 2)[:1]),
        *(0, 1, "train/2.png", "line 4: as line 1"),
    ),
    "boxes-nearly-equal": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [1, *d.rows("train", 2)[0][1:]]]),
        *(0, 1, "train/2.png", "car and b<u>s"),
    ),
    "label-unreadable": (
        lambda d: d.write_rows("train", 2, "0 0.5 0.5 0.2\n"),
        *(0, 1, "train/2.png", "line 1 has 4 columns"),
    ),
    "class-ids-out-of-range": (
        lambda d: d.write_rows("train", 2, [*d.rows("train", 2), [7, 0.5, 0.2, 0.1, 0.1]]),
        *(1, 1, "train/2.png", "line 4: class 7"),
    ),
    "class-ids-from-one": (
        lambda d: [d.rewrite(split, lambda row: [row[0] + 1, *row[1:]]) for split in ("train", "val")],
        *(1, 28, "train/", "class 3"),
    ),
    "coordinates-in-pixels": (lambda d: d.rewrite("train", pixel_values), 1, 16, "images/train/", "first row"),
    "coordinates-in-other-order": (
        lambda d: d.rewrite("val", lambda r: [r[0], r[2], r[1], r[4], r[3]]),
        *(1, 12, "images/val/", "first row"),
    ),
    "names-unused": (lambda d: d.write_yaml(names=["car", "b<u>s", "自行车", "kite"]), 0, 1, "", "kite"),
    "names-repeated": (lambda d: d.write_yaml(names=["car", "b<u>s", "Car "]), 0, 1, "", "car"),
    "classes-rare": (
        lambda d: [d.write_rows("val", i, d.rows("val", i)[:2]) for i in range(8)],
        *(0, 1, "", "val: 自行车, 4 objects"),
    ),
    "classes-not-in-train": (
        lambda d: [d.write_rows("train", i, d.rows("train", i)[:2]) for i in range(16)],
        *(0, 1, "", "自行车: 12"),
    ),
    "image-damaged": (
        lambda d: d.image("train", 6).write_bytes(d.image("train", 6).read_bytes()[:900]),
        *(0, 1, "train/6.png", ""),
    ),
    "image-tiny": (lambda d: save(d, pillow(1, size=(1, 1)), "dot.png"), 0, 1, "dot.png", "1x1"),
    "image-extreme-aspect": (lambda d: save(d, pillow(1, size=(500, 20)), "bar.png"), 0, 1, "bar.png", "500x20"),
    "image-mode": (lambda d: save(d, pillow(1, "L"), "grey.png"), 0, 1, "grey.png", "grey"),
    "image-animated": (
        lambda d: save(d, pillow(1), "film.webp", save_all=True, append_images=[pillow(2)]),
        *(0, 1, "film.webp", "2 frames"),
    ),
    "image-wrong-suffix": (
        lambda d: save(d, pillow(1), "p.jpg", format="PNG"),
        *(0, 1, "p.jpg", "PNG"),
    ),
    "image-exif-rotated": (
        lambda d: save(d, pillow(1), "turned.jpg", exif=orientation(6)),
        *(0, 1, "turned.jpg", f"{HEIGHT}x{WIDTH}"),
    ),
    "image-sizes-differ": (
        lambda d: [d.write("val", i, enlarged(d.image("val", i)), d.rows("val", i)) for i in range(12)],
        *(0, 1, "", "val: images of"),
    ),
    "images-unread": (lambda d: (d.folder / "images/train/a.HEIC").write_bytes(b"x"), 0, 1, "a.HEIC", ""),
    "files-hidden": (lambda d: (d.folder / "images/train/._0.png").write_bytes(b"x"), 0, 1, "._0.png", ""),
}


def test_every_kind_is_documented_and_planted() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", (PROJECT_ROOT / "docs/data.md").read_text(encoding="utf-8"), re.M)
    documented = {kind for row in rows for kind in re.findall("`([^`]+)`", row)}
    assert KINDS.keys() <= documented
    assert KINDS.keys() == SUSPECTS.keys() | FAULTS.keys()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_once(kind: str, tmp_path: Path) -> None:
    plant, expected_code, count, path, words = FAULTS[kind]
    data = FaultySet(tmp_path / "set")
    plant(data)
    code, found = check(data)
    assert kind in found, list(found)
    finding = found[kind]
    assert (code, finding["count"]) == (expected_code, count)
    assert finding["examples"] or not path
    if finding["examples"]:
        example = finding["examples"][0]
        assert path in example["path"].replace("\\", "/") and words in example["words"]


@pytest.mark.parametrize(
    ("reading", "change"),
    [
        ("cy cx h w", lambda c, x, y, w, h: [c, y, x, h, w]),
        ("cx cy h w", lambda c, x, y, w, h: [c, x, y, h, w]),
        ("cy cx w h", lambda c, x, y, w, h: [c, y, x, w, h]),
        ("x1 y1 x2 y2", corners),
        ("y1 x1 y2 x2", lambda c, x, y, w, h: [c, y - h / 2, x - w / 2, y + h / 2, x + w / 2]),
        ("x1 x2 y1 y2", lambda c, x, y, w, h: [c, x - w / 2, x + w / 2, y - h / 2, y + h / 2]),
        ("x1 y1 w h", lambda c, x, y, w, h: [c, x - w / 2, y - h / 2, w, h]),
    ],
)
def test_every_order_of_coordinates_is_recognised(reading: str, change: Callable, tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    for split in ("train", "val"):
        data.rewrite(split, lambda row: change(*row))
    code, found = check(data)
    finding = found["coordinates-in-other-order"]
    assert (code, finding["count"], finding["details"]["reading"]) == (1, 28, reading)
    assert finding["splits"] == ["train", "val"]


def test_pixel_corners_are_recognised(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    data.rewrite(
        "val", lambda r: pixel_values([r[0], r[1] - r[3] / 2, r[2] - r[4] / 2, r[1] + r[3] / 2, r[2] + r[4] / 2])
    )
    _, found = check(data)
    assert found["coordinates-in-pixels"]["details"]["reading"] == "x1 y1 x2 y2"
    assert found["coordinates-in-pixels"]["splits"] == ["val"]
    assert "values-out-of-range" not in found  # a consequence, not a finding of its own


def test_what_concerns_most_of_a_split_spoils_a_result(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    for index in range(9):  # of 16
        data.label("train", index).unlink()
        data.image("val", index).write_bytes(b"\xff\xd8 not an image")
    code, found = check(data)
    assert code == 1
    assert found["images-without-labels"]["severity"] == found["image-damaged"]["severity"] == "spoils"


def test_the_report_needs_no_other_file_and_shows_every_name(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    data.write_rows("train", 2, [*data.rows("train", 2), [2, 0.9, 0.5, 0.4, 0.1]])
    check(data)
    page = (tmp_path / "set-check/exp/report.html").read_text(encoding="utf-8")
    assert "自行车" in page and "b&lt;u&gt;s" in page and "<u>" not in page
    assert 'src="data:image/jpeg;base64,' in page and "http" not in page and "<script" not in page
    drawn = read_image(next((tmp_path / "set-check/exp/examples").glob("boxes-beyond-image*.jpg")))
    assert drawn.shape[1] > drawn.shape[0] and max(drawn.shape) == 480


def test_nothing_is_written_into_the_data_set(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    before = sorted((p, p.stat().st_mtime_ns) for p in data.folder.rglob("*"))
    check(data)
    assert sorted((p, p.stat().st_mtime_ns) for p in data.folder.rglob("*")) == before


def test_a_folder_stands_for_its_data_yaml(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    options = PrepareOptions(source=str(data.folder), check=True, project=str(tmp_path / "check"))
    assert run_check(options) == 0
    data.yaml.rename(data.folder / "set.yaml")
    (data.folder / "other.yml").write_text("names: [a]")
    with pytest.raises(ConfigError) as caught:
        run_check(options)
    assert caught.value.where == "SOURCE"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    data.image("train", 1).rename(os.fsdecode(os.fsencode(data.image("train", 1).parent) + b"/\xff.png"))
    code, found = check(data)
    assert (code, found.keys()) == (0, {"images-without-labels", "labels-without-image"})


def test_a_test_split_may_lack_labels(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set", sizes={"train": 16, "val": 12, "test": 3})
    data.write_yaml(test="images/test")
    for index in range(3):
        data.label("test", index).unlink()
    code, found = check(data)
    assert (code, found["split-without-objects"]["severity"]) == (0, "warning")


def test_without_any_readable_split_the_error_of_the_first_is_raised(tmp_path: Path) -> None:
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: nowhere\nval: nowhere\nnames: [a]\n")
    options = PrepareOptions(source=str(yaml), check=True, project=str(tmp_path / "check"))
    with pytest.raises(DataError):
        run_check(options)
    with pytest.raises(ConfigError) as missing:
        run_check(PrepareOptions(source=str(tmp_path / "none.yaml"), check=True))
    assert missing.value.where == "SOURCE"
    assert not (tmp_path / "check").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_that_lead_to_themselves_are_reported(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    for path in (data.image("train", "loop"), data.label("train", "loop"), data.folder / "images/train/.loop"):
        path.symlink_to(path.name)
    code, found = check(data)
    assert (code, {kind: finding["count"] for kind, finding in found.items()}) == (
        0,
        {"image-damaged": 1, "label-unreadable": 1, "files-hidden": 1},
    )
