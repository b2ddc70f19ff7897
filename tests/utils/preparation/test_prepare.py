"""prepare.py: classes, splits and folds, how images are written, orientations, and what is refused."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import LAYOUTS, NAMES, STEMS, TRUTH, coco_content, image_bytes, put, voc_text, yolo_text
from tests.helpers.published_labels import voc_object, voc_xml
from utils.datasets.config import load_data_config
from utils.datasets.convert import recognise
from utils.datasets.labels import label_path
from utils.datasets.scan import list_images
from utils.errors import ConfigError, DataError, DetectorError, RunError
from utils.options.preparation import FORMATS


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def rows_in(path):
    return [[float(value) for value in line.split()] for line in path.read_text().splitlines()]


def class_names_of_objects(out):
    """Return the class names of all objects, sorted."""
    names = load_data_config(str(out / "data.yaml")).names
    return sorted(names[int(row[0])] for path in out.rglob("labels/**/*.txt") for row in rows_in(path))


def refused(prepare, error, *argv):
    """Check that the command is refused in one line and writes nothing; return the error."""
    with pytest.raises(error) as caught:
        prepare(*argv)
    assert "\n" not in str(caught.value)
    return caught.value


# classes


def test_classes_are_those_of_the_data_in_order_of_appearance_or_sorted(tmp_path, prepare):
    LAYOUTS["voc_without_lists"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "a")
    assert load_data_config(str(tmp_path / "a/data.yaml")).names == ("圆环", "dog", "red light")
    prepare(tmp_path / "in", "--out", tmp_path / "b", "--sort-names")
    assert load_data_config(str(tmp_path / "b/data.yaml")).names == ("dog", "red light", "圆环")
    assert class_names_of_objects(tmp_path / "a") == class_names_of_objects(tmp_path / "b")


def test_a_class_that_names_lacks_stops_unless_it_is_ignored(tmp_path, prepare):
    LAYOUTS["voc_without_lists"](tmp_path / "in")
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out", "--names", "dog", "圆环")
    assert error.where == "--names" and "'red light'" in error.what and not (tmp_path / "out").exists()
    argv = [tmp_path / "in", "--out", tmp_path / "out", "--names", "dog", "圆环", "--ignore-class", "red light"]
    prepare(*argv)
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == ("dog", "圆环")
    expected = sorted(name for _, _, boxes in TRUTH.values() for name, _ in boxes if name != "red light")
    assert class_names_of_objects(tmp_path / "out") == expected


def test_an_ignored_class_must_exist(tmp_path, prepare):
    LAYOUTS["labelme"](tmp_path / "in")
    error = refused(prepare, ConfigError, tmp_path / "in", "--out", tmp_path / "out", "--ignore-class", "dag")
    assert error.where == "--ignore-class" and "dog" in error.fix


def test_ids_of_yolo_labels_move_up_when_a_class_is_ignored(tmp_path, prepare):
    LAYOUTS["yolo_images_and_labels"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--ignore-class", NAMES[0])
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == NAMES[1:]
    assert {row[0] for path in tmp_path.glob("out/labels/*/*.txt") for row in rows_in(path)} == {0, 1}


def test_yolo_labels_without_names_get_them_by_the_flag_or_are_numbered(tmp_path, prepare):
    LAYOUTS["yolo_images_and_labels"](tmp_path / "in")
    (tmp_path / "in/classes.txt").unlink()
    prepare(tmp_path / "in", "--out", tmp_path / "a")
    assert load_data_config(str(tmp_path / "a/data.yaml")).names == ("class0", "class1", "class2")
    put(tmp_path / "names.txt", "\n".join(NAMES))
    prepare(tmp_path / "in", "--out", tmp_path / "b", "--names", tmp_path / "names.txt")
    assert load_data_config(str(tmp_path / "b/data.yaml")).names == NAMES
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "c", "--names", "one", "two")
    assert "class 2" in error.what


@pytest.mark.parametrize("names", ["{'0': a b, 1: b, '2': 圆}", "\n  2: 圆\n  0: a b\n  1: b", "[a b, b, 圆]"])
def test_names_of_a_yaml_are_read_as_train_py_does(tmp_path, prepare, names):
    LAYOUTS["yolo_images_and_labels"](tmp_path / "in")
    put(tmp_path / "in/data.yaml", f"train: images\nnames: {names}\n")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == ("a b", "b", "圆")


@pytest.mark.parametrize("names", ["{1: a, 2: b, 3: c}", "[[a], [b], [c]]", "[a, b, null]"])
def test_names_of_a_yaml_that_train_py_refuses_are_refused(tmp_path, prepare, names):
    LAYOUTS["yolo_images_and_labels"](tmp_path / "in")
    put(tmp_path / "in/data.yaml", f"train: images\nnames: {names}\n")
    assert refused(prepare, ConfigError, tmp_path / "in", "--out", tmp_path / "out").where == "data.yaml"


def test_vocs_20_classes_are_never_a_default(tmp_path, prepare):
    put(tmp_path / "in/VOC2007/JPEGImages/a.png", image_bytes("a"))
    put(tmp_path / "in/VOC2007/JPEGImages/e.png", image_bytes("e"))
    for stem in "ae":
        put(tmp_path / f"in/VOC2007/Annotations/{stem}.xml", voc_xml(voc_object("person", (2, 2, 30, 30))))
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == ("person",)


# splits


@pytest.fixture
def many(tmp_path):
    """A folder of 40 labelled images, 4 of class b and 36 of class a."""
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 30, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        name = f"{index * 7919 % 1000:x}q{chr(97 + index % 26)}{index}z"
        put(tmp_path / f"many/images/{name}.png", buffer.getvalue())
        put(tmp_path / f"many/labels/{name}.txt", f"{int(index % 10 == 0)} 0.5 0.5 0.25 0.5\n")
    put(tmp_path / "many/classes.txt", "a\nb\n")
    return tmp_path / "many"


def test_the_default_split_is_8_1_1_by_class_and_a_function_of_the_seed(many, tmp_path, prepare):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(many, "--out", tmp_path / out, "--seed", seed)
    config = load_data_config(str(tmp_path / "a/data.yaml"))
    assert [len(list_images(config, split)) for split in ("train", "val", "test")] == [32, 4, 4]
    for split in ("train", "val", "test"):
        assert any(row[0] == 1 for path in tmp_path.glob(f"a/labels/{split}/*.txt") for row in rows_in(path))
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b") != files_below(tmp_path / "c")


def test_a_given_split_replaces_those_of_the_source(tmp_path, prepare):
    LAYOUTS["roboflow_coco"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--split", 5, 1)
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert sum(len(list_images(config, split)) for split in ("train", "val")) == len(STEMS)
    assert not config.splits["test"]


def test_val_is_taken_from_train_if_the_source_has_train_and_test_only(tmp_path, prepare):
    LAYOUTS["yolo_split_folders_without_a_yaml"](tmp_path / "in")
    os.rename(tmp_path / "in/val", tmp_path / "in/train/more")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert sum(len(list_images(config, split)) for split in ("train", "val")) == 5
    assert [p.name for p in (tmp_path / "out/images/test").iterdir()] == ["f.bmp"]


def test_a_split_needs_two_images(tmp_path, prepare):
    put(tmp_path / "in/a.png", image_bytes("a"))
    put(tmp_path / "in/a.xml", voc_text("a"))
    refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    put(tmp_path / "in/e.png", image_bytes("e"))
    put(tmp_path / "in/e.xml", voc_text("e"))
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert [len(list_images(config, split)) for split in ("train", "val")] == [1, 1]


def test_each_image_is_validated_in_one_fold(many, tmp_path, prepare):
    prepare(many, "--out", tmp_path / "out", "--folds", 5)
    validated = []
    for fold in range(5):
        config = load_data_config(str(tmp_path / f"out/data_fold{fold}.yaml"))
        train, val = (set(list_images(config, split)) for split in ("train", "val"))
        assert not train & val and len(train | val) == 40 and all(os.path.exists(label_path(path)) for path in val)
        validated += val
    assert len(validated) == len(set(validated)) == 40
    assert not (tmp_path / "out/data.yaml").exists()


def test_folds_leave_the_test_split_alone(tmp_path, prepare):
    LAYOUTS["roboflow_voc"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--folds", 2)
    for fold in range(2):
        config = load_data_config(str(tmp_path / f"out/data_fold{fold}.yaml"))
        assert len({*list_images(config, "train"), *list_images(config, "val")}) == 5
        assert [os.path.basename(path) for path in list_images(config, "test")] == ["f.jpg"]


def noise(seed, size_wh=(96, 64)):
    """Return a smooth random image."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 9, 3), np.uint8))
    return small.resize(size_wh, Image.Resampling.BICUBIC)


def test_near_duplicates_stay_in_one_split(tmp_path, prepare):
    for index in range(12):
        for name, size_wh in ((f"p{index}", (96, 64)), (f"q{index * 31 % 97}x", (144, 96))):
            buffer = io.BytesIO()
            noise(index, size_wh).save(buffer, "JPEG", quality=80)
            put(tmp_path / f"in/images/{name}.jpg", buffer.getvalue())
            put(tmp_path / f"in/labels/{name}.txt", "0 0.5 0.5 0.25 0.5\n")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--split", 1, 1)
    split_of = {path.stem: path.parent.name for path in tmp_path.glob("out/images/*/*.jpg")}
    assert len(split_of) == 24 and {*split_of.values()} == {"train", "val"}
    assert all(split_of[f"p{index}"] == split_of[f"q{index * 31 % 97}x"] for index in range(12))


def test_splits_of_the_source_are_kept_and_near_duplicates_between_them_named(tmp_path, prepare, caplog):
    for split, seeds in (("train", range(8)), ("val", (8, 9, 3))):
        for index in seeds:
            buffer = io.BytesIO()
            noise(index, (144, 96) if split == "val" else (96, 64)).save(buffer, "JPEG", quality=80)
            put(tmp_path / f"in/images/{split}/{split}{index}.jpg", buffer.getvalue())
            put(tmp_path / f"in/labels/{split}/{split}{index}.txt", "0 0.5 0.5 0.25 0.5\n")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert sorted(path.stem for path in tmp_path.glob("out/images/val/*.jpg")) == ["val3", "val8", "val9"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "val3.jpg" in warnings[0] and "train3.jpg" in warnings[0]
    assert not any(f"val{index}.jpg" in warnings[0] for index in (8, 9))


def test_a_folder_that_is_one_group_is_divided_in_its_order(tmp_path, prepare, caplog):
    buffer = io.BytesIO()
    noise(0).save(buffer, "PNG")
    for index in range(6):
        put(tmp_path / f"in/images/{index}.png", buffer.getvalue())
        put(tmp_path / f"in/labels/{index}.txt", "0 0.5 0.5 0.25 0.5\n")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--split", 2, 1)
    assert [record.levelname for record in caplog.records if "one group" in record.message] == ["WARNING"]
    assert len(list(tmp_path.glob("out/images/train/*"))) == 4 and len(list(tmp_path.glob("out/images/val/*"))) == 2


# writing


@pytest.mark.parametrize("flag", ["", "--copy", "--in-place-lists"])
def test_images_are_linked_or_copied_and_found_with_their_labels(flag, tmp_path, prepare):
    LAYOUTS["roboflow_yolo"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "out", *([flag] if flag else []))
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    found = [path for split in ("train", "val", "test") for path in list_images(config, split)]
    assert len(found) == len(STEMS)
    for path in found:
        source = next((tmp_path / "in").rglob(os.path.basename(path)))
        assert os.path.samefile(path, source) == (flag != "--copy")
        assert os.path.islink(path) == (flag == "--in-place-lists")
        assert os.path.exists(label_path(path))


def test_yolo_labels_are_copied_byte_for_byte_with_their_broken_rows(tmp_path, prepare):
    LAYOUTS["yolo_images_and_labels_split"](tmp_path / "in")
    odd = b"0 .5 0.50 5e-1 0.250000000001\r\n1 0.5 0.5 1.7 0.2\nbroken row\n2 0.1 0.1 0.5 0.1 0.5 0.5\n"
    put(tmp_path / "in/labels/train2017/a.txt", odd)
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert (tmp_path / "out/labels/train/a.txt").read_bytes() == odd


def test_an_image_without_a_label_file_stays_without_one(tmp_path, prepare):
    LAYOUTS["yolo_images_and_labels_split"](tmp_path / "in")
    (tmp_path / "in/labels/train2017/a.txt").unlink()
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert (tmp_path / "out/images/train/a.jpg").exists() and not (tmp_path / "out/labels/train/a.txt").exists()


def test_images_that_would_share_a_label_file_get_numbers(tmp_path, prepare):
    names = ["x/A.png", "x/a.bmp", "y/a.png", "y/a-2.png"]
    for name, stem in zip(names, STEMS, strict=False):
        put(tmp_path / f"in/images/{name}", image_bytes(stem, name[-4:]))
    content = coco_content(["a", "图片_02", "c 3", "d.v2"], dict(zip(STEMS, names, strict=False)).__getitem__)
    put(tmp_path / "in/all.json", content)
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--in-place-lists")
    images = files_below(tmp_path / "out/images")
    assert len({name.lower().rsplit(".", 1)[0] for name in images}) == len(images) == 4
    for name, stem in zip(names, STEMS, strict=False):
        written = next(p for p in (tmp_path / "out/images").iterdir() if p.samefile(tmp_path / f"in/images/{name}"))
        rows = rows_in(tmp_path / f"out/labels/{written.stem}.txt")
        assert [int(row[0]) for row in rows] == [NAMES.index(box[0]) for box in TRUTH[stem][2]]


def test_names_of_255_bytes_stay_within_what_file_systems_allow(tmp_path, prepare):
    for folder in "ab":
        name = "图" * 83 + ".png"
        put(tmp_path / f"in/{folder}/{name}", image_bytes(folder if folder == "a" else "e"))
        put(tmp_path / f"in/{folder}/{name[:-4]}.txt", yolo_text("a"))
    put(tmp_path / "in/classes.txt", "\n".join(NAMES))
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--in-place-lists")
    assert len(list(tmp_path.glob("out/images/*.png"))) == len(list(tmp_path.glob("out/labels/*.txt"))) == 2


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing(error, tmp_path, prepare, monkeypatch):
    LAYOUTS["labelme"](tmp_path / "in")

    def entries(*_):
        yield "images/train/a.jpg", b"1"
        raise error

    monkeypatch.setattr("utils.preparation.run.entries", entries)
    with pytest.raises((RunError, KeyboardInterrupt)):
        prepare(tmp_path / "in", "--out", tmp_path / "deep/out")
    assert list((tmp_path / "deep").iterdir()) == []


# EXIF


def photo(orientation, side_wh):
    """Return a JPEG stored in one orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", side_wh).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_made_on_the_stored_image_are_rotated_with_it(orientation, tmp_path, prepare):
    stored_wh, box = (60, 40), (6, 4, 24, 30)
    mask = np.zeros(stored_wh[::-1], np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    transpose = {5: mask.T, 6: np.rot90(mask, -1), 7: np.rot90(mask.T, 2), 8: np.rot90(mask)}[orientation]
    y, x = np.nonzero(transpose)
    expected = (x.min() / 40, y.min() / 60, (x.max() + 1) / 40, (y.max() + 1) / 60)
    for stem, size in (("a", stored_wh), ("b", stored_wh[::-1])):
        put(tmp_path / f"in/{stem}.jpg", photo(orientation, stored_wh))
        shown = {"label": "x", "points": [[8, 6], [20, 18]], "shape_type": "rectangle"}
        raw = {"label": "x", "points": [box[:2], box[2:]], "shape_type": "rectangle"}
        shapes = {"shapes": [raw if stem == "a" else shown], "imagePath": f"{stem}.jpg"}
        put(tmp_path / f"in/{stem}.json", {**shapes, "imageWidth": size[0], "imageHeight": size[1]})
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    (a,), (b,) = (rows_in(next(tmp_path.glob(f"out/labels/*/{stem}.txt"))) for stem in "ab")
    np.testing.assert_allclose(b[1:], [14 / 40, 12 / 60, 12 / 40, 12 / 60])
    cx, cy, w, h = a[1:]
    np.testing.assert_allclose((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), expected, atol=1e-9)


# what is recognised, and what is refused


def test_several_formats_are_a_question_with_the_flag_that_answers_it(tmp_path, prepare):
    LAYOUTS["labelimg_voc_flat"](tmp_path / "in")
    for stem in STEMS:
        put(tmp_path / f"in/{stem}.txt", yolo_text(stem))
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert "--format yolo" in error.fix and "--format voc" in error.fix and not (tmp_path / "out").exists()
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--format", "voc")
    assert load_data_config(str(tmp_path / "out/data.yaml")).num_classes == len(NAMES)


def test_the_flag_offers_every_format(tmp_path, prepare):
    assert set(FORMATS) == {*recognise.FORMATS}
    refused(prepare, ConfigError, tmp_path, "--format", "kitti")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"notes.txt": "hello"},
        {"a.txt": "12 fox 0.1 0.2"},
        {"a.xml": "<project><a/></project>"},
        {"a.json": "[1, 2]", "b.json": "{}"},
        {"a.csv": "epoch,loss\n1,2\n"},
    ],
)
def test_a_folder_without_annotations_is_refused(files, tmp_path, prepare):
    put(tmp_path / "in/a.png", image_bytes("a"))
    for name, content in files.items():
        put(tmp_path / "in" / name, content)
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert error.where == str(tmp_path / "in") and "1 images" in error.what


def test_sources_that_are_no_folders_and_targets_that_exist_are_refused(tmp_path, prepare):
    LAYOUTS["labelme"](tmp_path / "in")
    put(tmp_path / "set.zip", "PK")
    put(tmp_path / "full/mine.txt", "x")
    for source, out in (
        ("missing", "out"),
        ("set.zip", "out"),
        ("full/mine.txt", "out"),
        ("full", "out"),  # no images
        ("in", "full"),
        ("in", "in"),
        ("in", "in/out"),
    ):
        refused(prepare, DetectorError, tmp_path / source, "--out", tmp_path / out)
    assert files_below(tmp_path / "full") == ["mine.txt"] and not (tmp_path / "out").exists()


def test_the_default_target_is_below_datasets_and_never_the_source(tmp_path, prepare, monkeypatch):
    LAYOUTS["labelme"](tmp_path / "datasets/cells")
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path / "datasets/cells")
    prepare("datasets/cells", "--out", "datasets/again")
    assert (tmp_path / "datasets/cells-yolo/data.yaml").exists() and (tmp_path / "datasets/again/data.yaml").exists()


def test_images_without_an_annotation_are_left_out_and_counted(tmp_path, prepare, caplog):
    LAYOUTS["labelimg_voc_flat"](tmp_path / "in")
    (tmp_path / "in/a.xml").unlink()
    (tmp_path / "in/e.jpg").unlink()
    with caplog.at_level("INFO", logger="akyolo"):
        prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert len(list(tmp_path.glob("out/images/*/*"))) == len(STEMS) - 2
    assert "1 annotations without an image" in caplog.text and "1 images without an annotation" in caplog.text


def test_an_image_of_two_annotations_is_refused(tmp_path, prepare):
    LAYOUTS["annotations_beside_images"](tmp_path / "in")
    put(tmp_path / "in/old/a.xml", voc_text("a"))
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert "annotations/a.xml" in error.what and "old/a.xml" in error.what


def test_an_image_in_two_lists_is_kept_in_one(tmp_path, prepare):
    LAYOUTS["voc_lists_with_paths"](tmp_path / "in")
    put(tmp_path / "in/ImageSets/val.txt", "a\nd.v2\ne\n")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert [p.parent.name for p in tmp_path.glob("out/images/*/a.png")] == ["train"]


# hostile sources

EXPANSIONS = '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]>'
TRAVERSALS = ["../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "C:\\evil.png"]


@pytest.mark.parametrize("root", ["annotation", "annotations"])
def test_xml_with_entities_is_refused_before_they_are_expanded(root, tmp_path, prepare):
    put(tmp_path / "in/a.png", image_bytes("a"))
    put(tmp_path / "in/a.xml", f"{EXPANSIONS}<{root}>&y;</{root}>")
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert error.where.endswith("a.xml") and "DOCTYPE" in error.what


@pytest.mark.parametrize("keys", ['"images": [], "annotations": [], "categories"', '"imagePath": "a.png", "shapes"'])
@pytest.mark.parametrize("value", ["[" * 100_000, "[1", "9" * 5000, '"\\ud800"', "1e999", "NaN"])
def test_hostile_json_is_one_line(keys, value, tmp_path, prepare):
    put(tmp_path / "in/a.png", image_bytes("a"))
    put(tmp_path / "in/a.json", f"{{{keys}: {value}}}")
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert error.where.endswith("a.json") and len(str(error)) < 400


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_in_annotations_never_lead_out_of_the_target(name, tmp_path, prepare):
    root = tmp_path / "deep/in"
    for stem in "ae":
        put(root / f"{stem}.png", image_bytes(stem))
    put(tmp_path / "evil.png", image_bytes("f"))
    content = coco_content(["a", "e", "f"], lambda stem: name if stem == "f" else f"{stem}.png")
    put(root / "coco.json", content)
    before = files_below(tmp_path)
    prepare(root, "--out", tmp_path / "deep/out")
    assert {path.name for path in tmp_path.glob("deep/out/images/*/*")} == {"a.png", "e.png"}
    assert [name for name in files_below(tmp_path) if not name.startswith("deep/out/")] == before


def test_links_are_followed_once_and_written_names_are_plain(tmp_path, prepare):
    LAYOUTS["labelimg_yolo_flat"](tmp_path / "elsewhere")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/broken.jpg").symlink_to("nowhere")
    (tmp_path / "elsewhere/notes.txt").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "in/pipe.txt")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert len(list(tmp_path.glob("out/images/*/*"))) == len(STEMS)
    assert all(path.is_file() and not path.is_symlink() for path in tmp_path.glob("out/images/*/*"))


def test_files_that_are_no_images_are_left_out(tmp_path, prepare):
    LAYOUTS["labelme"](tmp_path / "in")
    put(tmp_path / "in/a.jpg", b"secret")
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert len(list(tmp_path.glob("out/images/*/*"))) == len(STEMS) - 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,2,three,4,x\n"),
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,2\n"),
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na\0.png,1,2,3,4,x\n"),
        ("a.csv", "image_id,bbox\na,[1 2 3]\n"),
        ("a.json", '{"images": [{"id": [], "file_name": "a.png"}], "annotations": [], "categories": []}'),
        ("_annotations.txt", "a.png 1,2,3,4,0\na.png 1,2,3\n"),
        ("_annotations.txt", "a.png 1,2,3,4,0\n../.. 1,2,3,4,0\n"),
        ("a.txt", "99999999 0.5 0.5 0.5 0.5\n"),
        ("a.xml", "<annotations><image name='a.png' width='0' height='5'/></annotations>"),
        ("a.xml", "<annotations><image name='a.png' width='9' height='5'><box label='x'/></image></annotations>"),
        ("a.xml", "<annotations><track id='0' label='x'/></annotations>"),
    ],
)
def test_invalid_annotations_are_named_and_nothing_is_written(name, content, tmp_path, prepare):
    put(tmp_path / "in/a.png", image_bytes("a"))
    put(tmp_path / "in" / name, content)
    error = refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out")
    assert error.where.split(":")[0].endswith(name) and not (tmp_path / "out").exists()


def test_an_infinite_size_is_replaced_by_that_of_the_image(tmp_path, prepare):
    LAYOUTS["labelimg_voc_flat"](tmp_path / "in")
    text = (tmp_path / "in/a.xml").read_text().replace("<width>64<", "<width>1e999<")
    put(tmp_path / "in/a.xml", text)
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    cx, _, width, _ = rows_in(next(tmp_path.glob("out/labels/*/a.txt")))[0][1:]
    assert (cx * 64, width * 64) == pytest.approx((18, 26))


def test_ids_without_suffix_must_name_one_image(tmp_path, prepare):
    LAYOUTS["csv_of_open_images"](tmp_path / "in")
    put(tmp_path / "in/images/a.png", image_bytes("a"))
    assert refused(prepare, DataError, tmp_path / "in", "--out", tmp_path / "out").where == "boxes.csv"


def test_polygons_are_written_on_request(tmp_path, prepare):
    LAYOUTS["cvat_images"](tmp_path / "in")
    prepare(tmp_path / "in", "--out", tmp_path / "out", "--polygons")
    lengths = {len(row) for path in tmp_path.glob("out/labels/*/*.txt") for row in rows_in(path)}
    assert lengths == {5, 9}


def test_a_json_of_class_names_is_no_coco_set(tmp_path, prepare):
    LAYOUTS["label_studio_yolo"](tmp_path / "in")
    (tmp_path / "in/classes.txt").unlink()
    prepare(tmp_path / "in", "--out", tmp_path / "out")
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == NAMES
    assert json.loads((tmp_path / "in/notes.json").read_text())["categories"]
