"""Pascal VOC's XML to YOLO."""

from xml.etree import ElementTree

import numpy as np
import pytest

from tests.helpers.data_oracles import tree_hash
from tests.helpers.published_labels import (
    HEIGHT,
    WIDTH,
    png,
    rows_in,
    run_convert,
    voc_object,
    voc_xml,
    write,
    write_voc,
)
from utils.datasets.config import load_data_config
from utils.datasets.convert import voc, xml_tree
from utils.datasets.convert.__main__ import convert
from utils.datasets.index import build_index
from utils.errors import DataError


def test_voc_boxes_are_converted_and_difficult_ones_skipped(tmp_path):
    objects = [
        voc_object("dog", (5, 6, 31, 40)),
        voc_object("person", (1, 1, WIDTH, HEIGHT), None),
        voc_object("cat", (9, 9, 20, 20), 1),
    ]
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(*objects, voc_object("unicorn", (1, 1, 9, 9)))}})
    report = run_convert("voc", tmp_path / "in", tmp_path / "out")
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
    run_convert("voc", tmp_path / "in", tmp_path / "out")
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
    run_convert("voc", tmp_path / "in", tmp_path / "out", "--names", "bush", "tall tree")
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
        run_convert("voc", tmp_path / "in", tmp_path / "out")
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
    monkeypatch.setattr(xml_tree, "TreeBuilder", watched_builder(seen))
    with pytest.raises(DataError) as caught:
        run_convert("voc", tmp_path / "in", tmp_path / "out")
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
    run_convert("voc", tmp_path / "in", tmp_path / "out", "--names", "br\xfblot & B")
    assert len(rows_in(tmp_path / "out/labels/train2007/a.txt")) == 1


def test_unknown_encodings_are_named(tmp_path):
    for encoding in ("nonsense", "utf-7"):
        xml = f'<?xml version="1.0" encoding="{encoding}"?>' + voc_xml()
        write_voc(tmp_path / "in", {"train": {"a": xml}})
        with pytest.raises(DataError, match=r"Annotations/a\.xml"):
            run_convert("voc", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "head", ["", '<?xml version="1.0" encoding="GB2312"?>', '<?xml version="1.0" encoding="utf-8"?>']
)
def test_annotations_may_be_gbk_whether_they_say_so_or_not(tmp_path, head):
    xml = head + voc_xml(voc_object("\u6ce2\u6d6a", (5, 6, 31, 40)))
    write_voc(tmp_path / "in", {"train": {"a": xml.encode("gbk")}})
    run_convert("voc", tmp_path / "in", tmp_path / "out", "--names", "\u5706", "\u6ce2\u6d6a")
    assert [row[0] for row in rows_in(tmp_path / "out/labels/train2007/a.txt")] == [1]


def test_stems_of_lists_may_have_spaces_and_flags_are_not_stems(tmp_path):
    xml = voc_xml(voc_object("dog", (5, 6, 31, 40)))
    stems = ["photo 1", "photo 2", "a holiday at sea", "plain", "photo", "near  two"]
    base = write_voc(tmp_path / "in", {"train": dict.fromkeys(stems, xml)})
    lines = "photo 1\r\nphoto 2\na holiday at sea  1\nplain -1\nphoto  0\n near  two \n\nplain\n"
    write(base / "ImageSets/Main/train.txt", b"\xef\xbb\xbf" + lines.encode())
    run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert {p.stem for p in (tmp_path / "out/images/train2007").iterdir()} == set(stems)
    assert {p.stem for p in (tmp_path / "out/labels/train2007").iterdir()} == set(stems)


def test_trainval_with_test_is_the_training_split(tmp_path):
    xml = voc_xml(voc_object("dog", (5, 6, 31, 40)))
    write_voc(tmp_path / "in", {"trainval": {"a": xml}, "test": {"b": xml}})
    run_convert("voc", tmp_path / "in", tmp_path / "out")
    splits = load_data_config(str(tmp_path / "out/data.yaml")).splits
    assert splits["train"] == ("images/trainval2007",) and splits["val"] == splits["test"] == ("images/test2007",)


def test_voc_boxes_without_numbers_or_area_are_skipped(tmp_path):
    objects = "<object><name>dog</name><bndbox></bndbox></object>" + voc_object("dog", (9, 9, 9, 20))
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(objects)}})
    report = run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/train2007/a.txt").read_bytes() == b""
    assert report["boxes without area skipped"] == 2


def test_a_list_cannot_name_files_outside_the_source(tmp_path):
    base = write_voc(tmp_path / "in", {"train": {"a": voc_xml(voc_object("dog", (5, 6, 31, 40)))}})
    write(tmp_path / "in/secret.xml", voc_xml())
    write(base / "ImageSets/Main/train.txt", "a\n../../../secret\n/etc/passwd\n")
    run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.jpg", "a.txt", "data.yaml"]


def test_voc_images_of_one_label_file_are_refused(tmp_path):
    for folder, suffix in (("one", "jpg"), ("two", "png")):
        write(tmp_path / f"in/{folder}/JPEGImages/a.{suffix}", png(9))
        write(tmp_path / f"in/{folder}/Annotations/a.xml", b"<annotation/>")
    with pytest.raises(DataError) as caught:
        convert(["voc", str(tmp_path / "in"), str(tmp_path / "out")])
    assert "one/JPEGImages/a.jpg" in str(caught.value) and "two/JPEGImages/a.png" in str(caught.value)


def test_classes_of_another_set_are_those_that_occur(tmp_path):
    for stem, name in (("a", "\u6ce2\u6d6a"), ("b", "arc")):
        write(tmp_path / f"in/{stem}.jpg")
        write(tmp_path / f"in/{stem}.xml", voc_xml(voc_object(name, (5, 6, 31, 40))))
    report = run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert load_data_config(str(tmp_path / "out/data.yaml")).names == ("\u6ce2\u6d6a", "arc")
    assert report["objects"] == 2


def test_a_source_without_val_is_warned_of(tmp_path, caplog):
    write_voc(tmp_path / "in", {"train": {"a": voc_xml(voc_object("dog", (5, 6, 31, 40)))}})
    run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert [record.levelname for record in caplog.records if "val" in record.message] == ["WARNING"]
