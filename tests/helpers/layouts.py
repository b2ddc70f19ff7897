"""One small data set in every layout that prepare.py recognises, written from the same known boxes."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("圆环", "red light", "dog")
# Image stems, width, height, and boxes: class name and corners in pixels, none at 0.
Box = tuple[str, tuple[float, float, float, float]]
TRUTH: dict[str, tuple[int, int, list[Box]]] = {
    "a": (64, 48, [("圆环", (5, 6, 31, 40)), ("dog", (1, 2, 63, 47))]),
    "图片_02": (37, 91, [("red light", (3, 50, 17, 83))]),
    "c 3": (120, 33, [("圆环", (10, 3, 20, 7)), ("圆环", (50, 8, 101, 29))]),
    "d.v2": (51, 50, [("dog", (7, 9, 44, 31))]),
    "e": (41, 77, [("red light", (2, 3, 39, 70)), ("dog", (20, 30, 25, 36))]),
    "f": (90, 60, [("圆环", (30, 20, 60, 41))]),
}
STEMS = [*TRUTH]
SPLIT_OF = {"a": "train", "图片_02": "train", "c 3": "train", "d.v2": "val", "e": "val", "f": "test"}
Layout = Callable[[Path], dict[str, str] | None]  # writes the set, and returns the splits that it has, by stem
LAYOUTS: dict[str, Layout] = {}


def layout(write: Layout) -> Layout:
    """Register a layout by the name of its function."""
    LAYOUTS[write.__name__] = write
    return write


def image_bytes(stem: str, suffix: str = ".png") -> bytes:
    """Return an image that no other stem has."""
    width, height, _ = TRUTH[stem]
    pixels = np.full((height, width, 3), 30 + 20 * STEMS.index(stem), np.uint8)
    pixels[: height // 2, : width // (2 + STEMS.index(stem))] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}.get(suffix.lower(), "PNG"))
    return buffer.getvalue()


def put(path: Path, content: object) -> None:
    """Write text, bytes or JSON; folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (dict, list)):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode())


def put_images(folder: Path, suffix: str = ".png", stems: list[str] = STEMS) -> None:
    for stem in stems:
        put(folder / f"{stem}{suffix}", image_bytes(stem, suffix))


def yolo_text(stem: str) -> str:
    width, height, boxes = TRUTH[stem]
    rows = [
        (NAMES.index(name), (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        for name, (x1, y1, x2, y2) in boxes
    ]
    return "".join(f"{' '.join(map(repr, row))}\n" for row in rows)


def voc_text(stem: str, suffix: str = ".png", *, first_pixel: int = 1, head: str = "") -> str:
    width, height, boxes = TRUTH[stem]
    objects = ""
    for name, box in boxes:
        corners = "".join(
            f"<{key}>{value + first_pixel:g}</{key}>"
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        objects += f"<object><name>{name}</name><pose>Unspecified</pose><bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"{head}<annotation><filename>{stem}{suffix}</filename>{size}{objects}</annotation>"


def coco_content(stems: list[str], name_of: Callable[[str], str] = lambda stem: f"{stem}.png") -> dict[str, object]:
    images, annotations = [], []
    for stem in stems:
        width, height, boxes = TRUTH[stem]
        images.append({"id": 10 + len(images), "file_name": name_of(stem), "width": width, "height": height})
        for name, (x1, y1, x2, y2) in boxes:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": 3 * NAMES.index(name) + 2, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": images[-1]["id"], **box})
    categories = [{"id": 3 * index + 2, "name": name} for index, name in enumerate(NAMES)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories[::-1]}


def rows_of(stems: list[str]) -> list[tuple[str, int, int, str, tuple[float, float, float, float]]]:
    return [(stem, *TRUTH[stem][:2], name, box) for stem in stems for name, box in TRUTH[stem][2]]


def put_csv(path: Path, rows: list[list[object]], delimiter: str = ",") -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    put(path, buffer.getvalue())


def stems_in(split: str) -> list[str]:
    return [stem for stem in STEMS if SPLIT_OF[stem] == split]


def data_yaml(train: str, val: str, test: str = "") -> str:
    return f"train: {train}\nval: {val}\n{f'test: {test}' if test else ''}\nnc: 3\nnames: {json.dumps(NAMES)}\n"


# YOLO


@layout
def yolo_images_and_labels(root: Path) -> None:
    put_images(root / "images")
    for stem in STEMS:
        put(root / f"labels/{stem}.txt", yolo_text(stem))
    put(root / "classes.txt", "\n".join(NAMES))


@layout
def yolo_images_and_labels_split(root: Path) -> dict[str, str]:
    for stem in STEMS:
        put(root / f"images/{SPLIT_OF[stem]}2017/{stem}.jpg", image_bytes(stem, ".jpg"))
        put(root / f"labels/{SPLIT_OF[stem]}2017/{stem}.txt", yolo_text(stem))
    put(root / "data.yaml", data_yaml("images/train2017", "images/val2017", "images/test2017"))
    return SPLIT_OF


@layout
def labelimg_yolo_flat(root: Path) -> None:
    put_images(root, ".JPG")
    for stem in STEMS:
        put(root / f"{stem}.txt", yolo_text(stem))
    put(root / "classes.txt", "\n".join(NAMES) + "\n\n")


@layout
def roboflow_yolo(root: Path) -> dict[str, str]:
    folders = {"train": "train", "val": "valid", "test": "test"}
    for stem in STEMS:
        put(root / f"{folders[SPLIT_OF[stem]]}/images/{stem}.jpg", image_bytes(stem, ".jpg"))
        put(root / f"{folders[SPLIT_OF[stem]]}/labels/{stem}.txt", yolo_text(stem))
    put(root / "data.yaml", data_yaml("../train/images", "../valid/images", "../test/images"))
    put(root / "README.roboflow.txt", "Set - v1\nhttps://universe.roboflow.com\n")
    put(root / "README.dataset.txt", "# Set\n")
    return SPLIT_OF


@layout
def yolo_split_folders_without_a_yaml(root: Path) -> dict[str, str]:
    for stem in STEMS:
        put(root / f"{SPLIT_OF[stem]}/{stem}.bmp", image_bytes(stem, ".bmp"))
        put(root / f"{SPLIT_OF[stem]}/{stem}.txt", yolo_text(stem))
    put(root / "names.txt", "\n".join(NAMES))
    return SPLIT_OF


@layout
def ultralytics_with_lists(root: Path) -> dict[str, str]:
    put_images(root / "images")
    for stem in STEMS:
        put(root / f"labels/{stem}.txt", yolo_text(stem))
    for split in ("train", "val", "test"):
        put(root / f"{split}.txt", "".join(f"./images/{stem}.png\n" for stem in stems_in(split)))
    put(root / "set.yaml", f"path: /home/other/set\n{data_yaml('train.txt', 'val.txt', 'test.txt')}")
    return SPLIT_OF


@layout
def yaml_with_paths_of_another_machine(root: Path) -> dict[str, str]:
    for stem in STEMS:
        put(root / f"images/{SPLIT_OF[stem]}/{stem}.png", image_bytes(stem))
        put(root / f"labels/{SPLIT_OF[stem]}/{stem}.txt", yolo_text(stem))
    windows = ("D:\\\\毕业论文\\\\set\\\\images\\\\" + split for split in ("train", "val", "test"))
    train, val, test = (f'"{path}"' for path in windows)
    put(root / "data.yaml", data_yaml(train, val, test))
    return SPLIT_OF


@layout
def cvat_yolo(root: Path) -> dict[str, str]:
    folders = {"train": "obj_train_data", "val": "obj_valid_data", "test": "obj_test_data"}
    lists = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
    for stem in STEMS:
        folder = folders[SPLIT_OF[stem]]
        put(root / folder / f"{stem}.png", image_bytes(stem))
        put(root / folder / f"{stem}.txt", yolo_text(stem))
    for split, name in lists.items():
        put(root / name, "".join(f"data/{folders[split]}/{stem}.png\n" for stem in stems_in(split)))
    put(root / "obj.data", "classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")
    put(root / "obj.names", "\n".join(NAMES))
    return SPLIT_OF


@layout
def darknet(root: Path) -> dict[str, str]:
    put_images(root / "data/obj", ".jpg")
    for stem in STEMS:
        put(root / f"data/obj/{stem}.txt", yolo_text(stem))
    for split, name in (("train", "list_a"), ("val", "list_b"), ("test", "test")):
        put(root / f"data/{name}.txt", "".join(f"data/obj/{stem}.jpg\n" for stem in stems_in(split)))
    put(root / "data/obj.data", "classes=3\ntrain=data/list_a.txt\nvalid=data/list_b.txt\nnames=data/obj.names\n")
    put(root / "data/obj.names", "\n".join(NAMES))
    return SPLIT_OF


@layout
def darknet_labels(root: Path) -> dict[str, str]:
    for stem in STEMS:
        put(root / f"{SPLIT_OF[stem]}/{stem}.jpg", image_bytes(stem, ".jpg"))
        put(root / f"{SPLIT_OF[stem]}/{stem}.txt", yolo_text(stem))
    for split in ("train", "val", "test"):
        put(root / f"{split}/_darknet.labels", "\n".join(NAMES))
    return SPLIT_OF


@layout
def label_studio_yolo(root: Path) -> None:
    put_images(root / "images", ".jpeg")
    for stem in STEMS:
        put(root / f"labels/{stem}.txt", yolo_text(stem))
    put(root / "classes.txt", "\n".join(NAMES))
    put(root / "notes.json", {"categories": [{"id": i, "name": n} for i, n in enumerate(NAMES)], "info": {}})


@layout
def yolo_labels_in_another_folder(root: Path) -> None:
    put_images(root / "photos")
    for stem in STEMS:
        put(root / f"txt/{stem}.txt", yolo_text(stem))
    put(root / "obj.names", "\n".join(NAMES))


# VOC


@layout
def voc_devkit(root: Path) -> dict[str, str]:
    base = root / "VOCdevkit/VOC2007"
    put_images(base / "JPEGImages", ".jpg")
    put_images(base / "SegmentationClass", ".png")
    for stem in STEMS:
        put(base / f"Annotations/{stem}.xml", voc_text(stem, ".jpg"))
    for split in ("train", "val", "test"):
        put(base / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems_in(split)))
    put(base / "ImageSets/Main/trainval.txt", "".join(f"{stem}\n" for stem in STEMS))
    put(base / "ImageSets/Main/dog_train.txt", "a  1\nc 3 -1\n")
    return SPLIT_OF


@layout
def voc_without_lists(root: Path) -> None:
    put_images(root / "JPEGImages", ".JPEG")
    for stem in STEMS:
        put(root / f"Annotations/{stem}.xml", voc_text(stem, ".JPEG"))


@layout
def labelimg_voc_flat(root: Path) -> None:
    put_images(root, ".jpg")
    for stem in STEMS:
        put(root / f"{stem}.xml", voc_text(stem, ".jpg"))
    put(root / "predefined_classes.txt", "person\ndog\n圆环\ncat\nred light\n")


@layout
def annotations_beside_images(root: Path) -> None:
    put_images(root / "images", ".PNG")
    for stem in STEMS:
        put(root / f"annotations/{stem}.xml", voc_text(stem, ".wrong"))


@layout
def annots_in_gbk(root: Path) -> None:
    put_images(root / "Images", ".bmp")
    for stem in STEMS:
        put(root / f"annots/{stem}.xml", voc_text(stem, ".bmp").encode("gbk"))


@layout
def declared_gb2312_with_upper_case_suffix(root: Path) -> None:
    put_images(root / "images")
    for stem in STEMS:
        head = '<?xml version="1.0" encoding="GB2312"?>\n'
        put(root / f"Annotations/{stem}.XML", voc_text(stem, head=head).encode("gb2312"))


@layout
def pets(root: Path) -> dict[str, str]:
    put_images(root / "images", ".jpg")
    for stem in STEMS:
        put(root / f"annotations/xmls/{stem}.xml", voc_text(stem, ".jpg"))
    put_images(root / "annotations/trimaps")
    put(root / "annotations/list.txt", "#Image CLASS-ID SPECIES\na 1 1\n")
    return {}


@layout
def roboflow_voc(root: Path) -> dict[str, str]:
    for stem in STEMS:
        folder = root / {"val": "valid"}.get(SPLIT_OF[stem], SPLIT_OF[stem])
        put(folder / f"{stem}.jpg", image_bytes(stem, ".jpg"))
        put(folder / f"{stem}.xml", voc_text(stem, ".jpg"))
    return SPLIT_OF


@layout
def voc_lists_with_paths(root: Path) -> dict[str, str]:
    put_images(root / "JPEGImages")
    for stem in STEMS:
        put(root / f"Annotations/{stem}.xml", voc_text(stem))
    for split in ("train", "val", "test"):
        put(root / f"ImageSets/{split}.txt", "".join(f"{stem}.png\r\n" for stem in stems_in(split)))
    return SPLIT_OF


# COCO


@layout
def coco_one_file(root: Path) -> None:
    put_images(root / "images")
    put(root / "result.json", coco_content(STEMS, lambda stem: f"images/{stem}.png"))


@layout
def coco_instances(root: Path) -> dict[str, str]:
    for split in ("train", "val", "test"):
        put_images(root / f"{split}2017", ".png", stems_in(split))
        put(root / f"annotations/instances_{split}2017.json", coco_content(stems_in(split)))
    put(root / "annotations/captions_val2017.json", {"images": [], "annotations": []})
    return SPLIT_OF


@layout
def roboflow_coco(root: Path) -> dict[str, str]:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_images(root / folder, ".png", stems_in(split))
        put(root / folder / "_annotations.coco.json", coco_content(stems_in(split)))
    return SPLIT_OF


@layout
def cvat_coco(root: Path) -> None:
    put_images(root / "images/default")
    put(root / "annotations/instances_default.json", coco_content(STEMS))


@layout
def coco_with_paths_of_another_machine(root: Path) -> None:
    put_images(root / "data")
    put(root / "labels.json", coco_content(STEMS, lambda stem: f"D:\\data\\{stem}.png"))


# Others


@layout
def cvat_images(root: Path) -> None:
    put_images(root / "images")
    labels = "".join(f"<label><name>{name}</name><attributes/></label>" for name in NAMES)
    images = ""
    for index, stem in enumerate(STEMS):
        width, height, boxes = TRUTH[stem]
        shapes = "".join(
            f'<box label="{name}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"/>'
            if name != "dog"
            else f'<polygon label="{name}" points="{x1},{y1};{x2},{y1};{x2},{y2};{x1},{y2}"/>'
            for name, (x1, y1, x2, y2) in boxes
        )
        images += f'<image id="{index}" name="{stem}.png" width="{width}" height="{height}">{shapes}</image>'
    task = f"<meta><task><labels>{labels}</labels></task></meta>"
    put(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?><annotations>{task}{images}</annotations>')


@layout
def cvat_images_with_subsets(root: Path) -> dict[str, str]:
    images = ""
    for stem in STEMS:
        subset = {"train": "Train", "val": "Validation", "test": "Test"}[SPLIT_OF[stem]]
        put(root / f"images/{subset}/{stem}.png", image_bytes(stem))
        width, height, boxes = TRUTH[stem]
        shapes = "".join(
            f'<box label="{name}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>' for name, (x1, y1, x2, y2) in boxes
        )
        images += f'<image name="{stem}.png" subset="{subset}" width="{width}" height="{height}">{shapes}</image>'
    put(root / "annotations.xml", f"<annotations>{images}</annotations>")
    return SPLIT_OF


@layout
def labelme(root: Path) -> None:
    put_images(root, ".jpg")
    for stem in STEMS:
        width, height, boxes = TRUTH[stem]
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle", "flags": {}}
            if name != "dog"
            else {"label": name, "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], "shape_type": "polygon"}
            for name, (x1, y1, x2, y2) in boxes
        ]
        size = {"imageHeight": height, "imageWidth": width, "imageData": None}
        put(root / f"{stem}.json", {"version": "5.0", "shapes": shapes, "imagePath": f"{stem}.jpg", **size})


@layout
def labelme_in_folders(root: Path) -> dict[str, str]:
    for stem in STEMS:
        width, height, boxes = TRUTH[stem]
        put(root / f"{SPLIT_OF[stem]}/images/{stem}.png", image_bytes(stem))
        shapes = [{"label": name, "points": [box[:2], box[2:]], "shape_type": "rectangle"} for name, box in boxes]
        content = {"imageData": "A" * 9000, "shapes": shapes, "imagePath": f"..\\images\\{stem}.png"}
        put(root / f"{SPLIT_OF[stem]}/json/{stem}.json", {**content, "imageHeight": height, "imageWidth": width})
    return SPLIT_OF


@layout
def csv_of_tensorflow(root: Path) -> dict[str, str]:
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_images(root / folder, ".jpg", stems_in(split))
        rows = [
            [f"{stem}.jpg", width, height, name, *box] for stem, width, height, name, box in rows_of(stems_in(split))
        ]
        put_csv(root / folder / "_annotations.csv", [header, *rows])
    return SPLIT_OF


@layout
def csv_of_open_images(root: Path) -> None:
    put_images(root / "images", ".jpg")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated".split(",")
    rows = [
        [stem, "xclick", f"/m/0{NAMES.index(name)}", 1, x1 / width, x2 / width, y1 / height, y2 / height, 0, 0]
        for stem, width, height, name, (x1, y1, x2, y2) in rows_of(STEMS)
    ]
    put_csv(root / "boxes.csv", [header, *rows])
    put_csv(root / "class-descriptions-boxable.csv", [[f"/m/0{i}", name] for i, name in enumerate(NAMES)])


@layout
def csv_of_kaggle_with_lists(root: Path) -> None:
    put_images(root / "train", ".jpg")
    rows = [
        [stem, width, height, f"[{x1}, {y1}, {x2 - x1}, {y2 - y1}]", name]
        for stem, width, height, name, (x1, y1, x2, y2) in rows_of(STEMS)
    ]
    put_csv(root / "train.csv", [["image_id", "width", "height", "bbox", "label"], *rows])


@layout
def csv_with_semicolons_and_sizes(root: Path) -> None:
    put_images(root / "pics")
    rows = [
        [f"pics/{stem}.png", name, x1, y1, x2 - x1, y2 - y1] for stem, _, _, name, (x1, y1, x2, y2) in rows_of(STEMS)
    ]
    put_csv(root / "labels.csv", [["Image Path", "Class Name", "x", "y", "w", "h"], *rows], ";")


@layout
def csv_of_retinanet(root: Path) -> None:
    put_images(root / "imgs")
    put_csv(root / "annotations.csv", [[f"imgs/{stem}.png", *box, name] for stem, _, _, name, box in rows_of(STEMS)])


@layout
def roboflow_keras_txt(root: Path) -> dict[str, str]:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_images(root / folder, ".jpg", stems_in(split))
        lines = ""
        for stem in stems_in(split):
            boxes = (f" {','.join(map(str, box))},{NAMES.index(name)}" for name, box in TRUTH[stem][2])
            lines += f"{stem}.jpg{''.join(boxes)}\n"
        put(root / folder / "_annotations.txt", lines)
        put(root / folder / "_classes.txt", "\n".join(NAMES))
    return SPLIT_OF
