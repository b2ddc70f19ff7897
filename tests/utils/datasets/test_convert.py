"""Converters: published label formats become YOLO's, verified by drawing and by plain arithmetic."""

import io
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import tree_hash
from utils.datasets.config import load_data_config
from utils.datasets.convert import visdrone, voc
from utils.datasets.convert.__main__ import convert
from utils.datasets.convert.coco import join_rings
from utils.datasets.index import build_index
from utils.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]
WIDTH, HEIGHT = 120, 80


def write(path, content=None):
    """Write text, bytes, a JSON object, or by default an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        buffer = io.BytesIO()
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(buffer, "JPEG")
        content = buffer.getvalue()
    elif isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def rows_in(path):
    return [[float(v) for v in line.split()] for line in path.read_text().splitlines()]


def run(*args):
    return convert([str(arg) for arg in args])


# VOC


def voc_object(name, box, difficult=0):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    hard = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name>{hard}<bndbox>{corners}</bndbox>{part}</object>"


def voc_xml(*objects, width=WIDTH, height=HEIGHT):
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"


def write_voc(root, splits, year="2007"):
    base = root / f"VOCdevkit/VOC{year}"
    for split, annotations in splits.items():
        for stem, xml in annotations.items():
            write(base / f"JPEGImages/{stem}.jpg")
            write(base / f"Annotations/{stem}.xml", xml)
        write(base / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in annotations))
    return base


def test_voc_boxes_are_converted_and_difficult_ones_skipped(tmp_path):
    objects = [
        voc_object("dog", (5, 6, 31, 40)),
        voc_object("person", (1, 1, WIDTH, HEIGHT), None),
        voc_object("cat", (9, 9, 20, 20), 1),
    ]
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(*objects, voc_object("unicorn", (1, 1, 9, 9)))}})
    report = run("voc", tmp_path / "in", tmp_path / "out")
    dog, person = rows_in(tmp_path / "out/labels/train2007/a.txt")
    # one pixel less than the mean of the corners, which are counted from 1
    expected = [11, ((5 + 31) / 2 - 1) / WIDTH, ((6 + 40) / 2 - 1) / HEIGHT, (31 - 5) / WIDTH, (40 - 6) / HEIGHT]
    np.testing.assert_allclose(dog, expected, atol=1e-6)
    assert person[0] == voc.NAMES.index("person") == 14 and person[3] == pytest.approx((WIDTH - 1) / WIDTH, abs=1e-5)
    assert report["difficult objects skipped"] == report["objects of class 'unicorn' skipped"] == 1


def test_voc_splits_and_years_become_folders_and_a_yaml(tmp_path):
    xml = voc_xml(voc_object("dog", (5, 6, 31, 40)))
    write_voc(tmp_path / "in", {"train": {"a": xml, "b": xml}, "val": {"c": xml}, "test": {"d": xml}})
    write(tmp_path / "in/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "a\nb\nc\n")
    write(tmp_path / "in/VOCdevkit/VOC2007/ImageSets/Main/dog_train.txt", "a 1\nb -1\n")
    write_voc(tmp_path / "in", {"train": {"x": xml}}, year="2012")
    before = tree_hash(tmp_path / "in")
    run("voc", tmp_path / "in", tmp_path / "out")
    assert tree_hash(tmp_path / "in") == before
    found = {p.relative_to(tmp_path / "out/images").as_posix() for p in (tmp_path / "out/images").rglob("*.jpg")}
    assert found == {"train2007/a.jpg", "train2007/b.jpg", "val2007/c.jpg", "test2007/d.jpg", "train2012/x.jpg"}
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert config.names == voc.NAMES == load_data_config("VOC.yaml").names
    assert [len(build_index(config, s, use_cache=False)) for s in ("train", "val", "test")] == [3, 1, 1]


def test_voc_with_other_names_needs_no_lists_or_sizes(tmp_path):
    xml = voc_xml(voc_object("tall tree", (11, 21, 61, 41)), width=0, height=0)
    for stem in ("a", "b"):
        write(tmp_path / f"in/JPEGImages/{stem}.jpg")
        write(tmp_path / f"in/Annotations/{stem}.xml", xml)
    write(tmp_path / "in/Annotations/without.xml", xml)
    run("voc", tmp_path / "in", tmp_path / "out", "--names", "bush", "tall tree")
    assert sorted(p.name for p in (tmp_path / "out/images/train").iterdir()) == ["a.jpg", "b.jpg"]
    np.testing.assert_allclose(
        rows_in(tmp_path / "out/labels/train/b.txt"), [[1, 35 / WIDTH, 30 / HEIGHT, 50 / WIDTH, 20 / HEIGHT]], atol=1e-6
    )
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == ("bush", "tall tree")


@pytest.mark.parametrize(
    "xml",
    [
        "<annotation><object>",
        '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        voc_xml(voc_object("dog", ("five", 6, 31, 40))),
        "",
    ],
)
def test_invalid_xml_is_named_and_nothing_is_written(tmp_path, xml):
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(voc_object("dog", (5, 6, 31, 40))), "b": xml}})
    with pytest.raises(DataError, match=r"Annotations/b\.xml"):
        run("voc", tmp_path / "in", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "latin-1", "cp037"])
@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "dog"><!ENTITY y "&x;">]><annotation><object><name>&y;</name></object></annotation>',
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l8;</annotation>',
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation x="&l8;"/>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>',
        "<!DOCTYPE annotation><annotation/>",
    ],
)
def test_a_doctype_is_refused_in_every_encoding(tmp_path, monkeypatch, text, encoding):
    data = text.encode(encoding)
    if encoding in ("latin-1", "cp037"):  # cp037 encodes < differently, and is declared in the first line only
        data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + data
    base = write_voc(tmp_path / "in", {"train": {"a": voc_xml(voc_object("dog", (5, 6, 31, 40)))}})
    write(base / "Annotations/a.xml", data)
    seen = []
    monkeypatch.setattr(voc, "TreeBuilder", watched_builder(seen))
    with pytest.raises(DataError) as caught:
        run("voc", tmp_path / "in", tmp_path / "out")
    assert caught.value.where.endswith("Annotations/a.xml")
    assert "DOCTYPE" in caught.value.what or encoding in ("cp037", "utf-16-be", "utf-16-le")
    assert not seen, "nothing after the DOCTYPE is parsed, so nothing is expanded"


def watched_builder(seen):
    class Watched(ElementTree.TreeBuilder):
        def start(self, *args):
            seen.append(args)
            return super().start(*args)

        def data(self, text):
            seen.append(text)
            return super().data(text)

    return Watched


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_annotations_may_have_any_common_encoding(tmp_path, encoding):
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?><!-- a comment -->'
    xml = head + voc_xml(voc_object("br\xfblot &amp; &#66;", (5, 6, 31, 40)))
    write_voc(tmp_path / "in", {"train": {"a": xml.encode(encoding)}})
    run("voc", tmp_path / "in", tmp_path / "out", "--names", "br\xfblot & B")
    assert len(rows_in(tmp_path / "out/labels/train2007/a.txt")) == 1


def test_unknown_encodings_are_named(tmp_path):
    for encoding in ("nonsense", "utf-7", "gbk"):
        xml = f'<?xml version="1.0" encoding="{encoding}"?>' + voc_xml()
        write_voc(tmp_path / "in", {"train": {"a": xml}})
        with pytest.raises(DataError, match=r"Annotations/a\.xml"):
            run("voc", tmp_path / "in", tmp_path / "out")


def test_stems_of_lists_may_have_spaces_and_flags_are_not_stems(tmp_path):
    xml = voc_xml(voc_object("dog", (5, 6, 31, 40)))
    stems = ["photo 1", "photo 2", "a holiday at sea", "plain", "photo", "near  two"]
    base = write_voc(tmp_path / "in", {"train": dict.fromkeys(stems, xml)})
    lines = "photo 1\r\nphoto 2\na holiday at sea  1\nplain -1\nphoto  0\n near  two \n\nplain\n"
    write(base / "ImageSets/Main/train.txt", b"\xef\xbb\xbf" + lines.encode())
    run("voc", tmp_path / "in", tmp_path / "out")
    assert {p.stem for p in (tmp_path / "out/images/train2007").iterdir()} == set(stems)
    assert {p.stem for p in (tmp_path / "out/labels/train2007").iterdir()} == set(stems)


def test_trainval_with_test_is_the_training_split(tmp_path):
    xml = voc_xml(voc_object("dog", (5, 6, 31, 40)))
    write_voc(tmp_path / "in", {"trainval": {"a": xml}, "test": {"b": xml}})
    run("voc", tmp_path / "in", tmp_path / "out")
    splits = load_data_config(str(tmp_path / "out/data.yaml")).splits
    assert splits["train"] == ("images/trainval2007",) and splits["val"] == splits["test"] == ("images/test2007",)


def test_voc_boxes_without_numbers_or_area_are_skipped(tmp_path):
    objects = "<object><name>dog</name><bndbox></bndbox></object>" + voc_object("dog", (9, 9, 9, 20))
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(objects)}})
    report = run("voc", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/train2007/a.txt").read_bytes() == b""
    assert report["boxes without area skipped"] == 2


def test_a_list_cannot_name_files_outside_the_source(tmp_path):
    base = write_voc(tmp_path / "in", {"train": {"a": voc_xml(voc_object("dog", (5, 6, 31, 40)))}})
    write(tmp_path / "in/secret.xml", voc_xml())
    write(base / "ImageSets/Main/train.txt", "a\n../../../secret\n/etc/passwd\n")
    run("voc", tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.jpg", "a.txt", "data.yaml"]


# VisDrone


def test_visdrone_categories_shift_by_one_and_ignored_rows_are_skipped(tmp_path):
    root = tmp_path / "in/VisDrone2019-DET-train"
    write(root / "images/a.jpg")
    lines = "10,20,30,40,1,4,0,0\n5,5,10,10,0,4,0,0\n0,0,50,50,0,0,0,0,\r\n1,2,3,4,1,10,1,2,\n\n1,1,9,9,1,11,0,0\n"
    write(root / "annotations/a.txt", lines + "110,70,30,30,1,1,0,0\n")
    write(root / "annotations/gone.txt", lines)
    report = run("visdrone", tmp_path / "in", tmp_path / "out")
    rows = rows_in(tmp_path / "out/VisDrone2019-DET-train/labels/a.txt")
    expected = [
        [3, 25 / WIDTH, 40 / HEIGHT, 30 / WIDTH, 40 / HEIGHT],
        [9, 2.5 / WIDTH, 4 / HEIGHT, 3 / WIDTH, 4 / HEIGHT],
        [0, 115 / WIDTH, 75 / HEIGHT, 10 / WIDTH, 10 / HEIGHT],  # clipped to the image
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    counts = {"images": 1, "objects": 3, "rows to ignore skipped": 2, "rows of other categories skipped": 1}
    assert report == {**counts, "annotations without an image skipped": 1}
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert config.names == visdrone.NAMES == load_data_config("VisDrone.yaml").names
    assert len(build_index(config, "train", use_cache=False).labels) == 3


@pytest.mark.parametrize("line", ["1,2,3", "a,b,c,d,1,4,0,0", "1,2,3,4,1,car,0,0", "1 2 3 4 1 4 0 0"])
def test_an_invalid_visdrone_row_is_named(tmp_path, line):
    write(tmp_path / "in/x/images/a.jpg")
    write(tmp_path / "in/x/annotations/a.txt", f"1,2,3,4,1,4,0,0\n{line}\n")
    with pytest.raises(DataError, match=r"x/annotations/a\.txt:2"):
        run("visdrone", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# COCO


def square(x, y, side=10):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def coco_json():
    """Categories out of order with gaps, a crowd, several parts, a run-length encoding, a box beyond the image."""
    annotations = [
        {
            "image_id": 5,
            "category_id": 90,
            "bbox": [10, 20, 30, 40],
            "segmentation": [[10, 20, 40, 20, 40, 60, 20, 60]],
        },
        {
            "image_id": 5,
            "category_id": 1,
            "bbox": [0, 0, 50, 50],
            "iscrowd": 1,
            "segmentation": {"counts": [], "size": []},
        },
        {"image_id": 5, "category_id": 13, "bbox": [5, 5, 60, 20], "segmentation": [square(5, 5), square(55, 15)]},
        {
            "image_id": 5,
            "category_id": 1,
            "bbox": [100, 60, 40, 40],
            "segmentation": {"counts": "abc", "size": [80, 120]},
        },
        {"image_id": 5, "category_id": 1, "bbox": [3, 3, 0, 5], "segmentation": []},
        {"image_id": 5, "category_id": 1, "bbox": [1, 1, 8, 8]},
    ]
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 6, "file_name": "empty.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 7, "file_name": "gone.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [{"id": i, "iscrowd": 0, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
    }


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "in"
    for name in ("a", "empty"):
        write(root / f"val2017/{name}.jpg")
    write(root / "annotations/instances_val2017.json", coco_json())
    write(root / "annotations/captions_val2017.json", {"images": [], "annotations": []})
    return root


def test_coco_categories_become_class_ids_in_the_order_of_their_ids(coco, tmp_path):
    report = run("coco", coco, tmp_path / "out")
    rows = rows_in(tmp_path / "out/labels/val2017/a.txt")
    expected = [
        [2, 25 / WIDTH, 40 / HEIGHT, 30 / WIDTH, 40 / HEIGHT],
        [1, 35 / WIDTH, 15 / HEIGHT, 60 / WIDTH, 20 / HEIGHT],
        [0, 110 / WIDTH, 70 / HEIGHT, 20 / WIDTH, 20 / HEIGHT],
        [0, 5 / WIDTH, 5 / HEIGHT, 8 / WIDTH, 8 / HEIGHT],
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert (tmp_path / "out/labels/val2017/empty.txt").read_bytes() == b""
    assert not (tmp_path / "out/labels/val2017/gone.txt").exists()
    skipped = {"crowds skipped": 1, "boxes without area skipped": 1, "images without a file skipped": 1}
    assert +report == {"images": 2, "objects": 4, **skipped}
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert config.names == ("person", "stop sign", "toothbrush")
    assert len(build_index(config, "val", use_cache=False)) == 2


def test_the_91_ids_of_coco_become_80_classes():
    missing = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    ids = [category_id for category_id in range(1, 91) if category_id not in missing]
    names = load_data_config("coco.yaml").names
    assert len(ids) == len(names) == 80 and names == load_data_config("coco128.yaml").names
    known = {
        1: "person",
        13: "stop sign",
        18: "dog",
        44: "bottle",
        62: "chair",
        70: "toilet",
        84: "book",
        90: "toothbrush",
    }
    assert {category_id: names[ids.index(category_id)] for category_id in known} == known


def test_coco_polygons_on_request(coco, tmp_path):
    run("coco", coco, tmp_path / "out", "--polygons")
    index = build_index(load_data_config(str(tmp_path / "out/data.yaml")), "val", use_cache=False)
    polygons = index.polygons(0)
    assert polygons.known.tolist() == [True, True, False, False]
    np.testing.assert_allclose(polygons.of(0) * (WIDTH, HEIGHT), [(10, 20), (40, 20), (40, 60), (20, 60)], atol=1e-3)
    np.testing.assert_allclose(index.rows(0)[1, 1:], [35 / WIDTH, 15 / HEIGHT, 60 / WIDTH, 20 / HEIGHT], atol=1e-5)


def test_joined_rings_enclose_what_the_parts_enclose():
    rng = np.random.default_rng(0)
    for _ in range(30):
        count = int(rng.integers(1, 6))
        places = rng.permutation(16)[:count]
        rings = []
        for place in places:
            angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
            radius = rng.uniform(8, 22, len(angle))[:, None]
            centre = (place % 4 * 50 + 25, place // 4 * 50 + 25)
            rings.append((np.stack((np.cos(angle), np.sin(angle)), 1) * radius + centre).round())
        joined = join_rings(rings)
        apart, together = np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
        for ring in rings:
            cv2.fillPoly(apart, [ring.astype(np.int32)], 1)
        cv2.fillPoly(together, [joined.astype(np.int32)], 1)
        bridges = np.zeros((200, 200), np.uint8)
        for start, end in zip(joined, np.roll(joined, -1, 0), strict=True):
            cv2.line(bridges, tuple(int(v) for v in start), tuple(int(v) for v in end), 1, 2)
        assert ((apart != together) & (bridges == 0)).sum() == 0
        assert {tuple(p) for p in joined} == {tuple(p) for ring in rings for p in ring}


def test_image_names_cannot_lead_out_of_the_target(tmp_path):
    content = coco_json()
    content["images"][0]["file_name"] = "../../../evil/a.jpg"
    content["images"][1]["file_name"] = "/abs/empty.jpg"
    write(tmp_path / "in/labels.json", content)
    run("coco", tmp_path / "in", tmp_path / "deep/er/out", "--labels-only")
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.txt"))
    base = "deep/er/out/labels/labels"
    assert found == [f"{base}/abs/empty.txt", f"{base}/evil/a.txt", f"{base}/gone.txt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].pop("bbox"),
        lambda c: c["annotations"][0].update(category_id=77),
        lambda c: c["annotations"][0].update(image_id="x"),
        lambda c: c["annotations"][0].update(bbox="abcd"),
        lambda c: c["annotations"][0].update(bbox=[1, 2]),
        lambda c: c["images"][0].pop("file_name"),
        lambda c: c["images"][0].update(width=0),
        lambda c: c.update(categories=None),
        lambda c: c["categories"].append("cat"),
        lambda c: c.update(annotations=[None]),
    ],
)
def test_invalid_coco_json_is_named_and_nothing_is_written(coco, tmp_path, change):
    content = coco_json()
    change(content)
    write(coco / "annotations/instances_val2017.json", content)
    with pytest.raises(DataError, match=r"instances_val2017\.json"):
        run("coco", coco, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The command


def test_labels_only_copies_no_images(coco, tmp_path):
    run("coco", coco, tmp_path / "out", "--labels-only")
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == [f"labels/val2017/{name}.txt" for name in ("a", "empty", "gone")]


@pytest.mark.parametrize("kind", ["voc", "visdrone", "coco"])
def test_a_source_of_another_format_is_refused(kind, tmp_path):
    write(tmp_path / "in/notes.txt", "hello")
    write(tmp_path / "in/other.json", "[]")
    with pytest.raises(DataError) as caught:
        run(kind, tmp_path / "in", tmp_path / "out")
    assert caught.value.where == kind
    assert not (tmp_path / "out").exists()


def test_an_existing_target_is_never_written_to(coco, tmp_path):
    write(tmp_path / "out/mine.txt", "x")
    with pytest.raises(ConfigError) as caught:
        run("coco", coco, tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "args",
    [
        ["voc"],
        ["pascal", "a", "b"],
        ["voc", "a", "b", "--polygons"],
        ["coco", "a", "b", "--names", "x"],
        ["voc", "a", "b", "--x"],
    ],
)
def test_invalid_arguments_are_refused(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^convert: "):
        convert(args)


@pytest.mark.slow
def test_the_command_runs_as_a_program(coco, tmp_path):
    command = [sys.executable, "-m", "utils.datasets.convert", "coco"]
    done = subprocess.run([*command, coco, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"python train.py --data {tmp_path}/out/data.yaml" in done.stdout, done.stderr
    failed = subprocess.run([*command, coco, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    empty = subprocess.run(command[:3], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert empty.returncode == 2 and empty.stderr.startswith("error: convert: ") and empty.stderr.count("\n") == 1
