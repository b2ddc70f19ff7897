"""Slow reference implementations for the tests of data sets, losses and metrics, and small data sets."""

import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image

REFERENCE = Path(__file__).parents[1] / "reference"
DARK, BRIGHT = 20, 255


def slow_matches(targets, anchors, size_hw, max_ratio):
    """Return (image, anchor, row, column, class, x in cell, y in cell, w, h) of each match, in assign_level's order."""
    height, width = size_hw
    matches = []
    for cell in ("centre", "left", "up", "right", "down"):
        for anchor, (anchor_w, anchor_h) in enumerate(anchors):
            for image, class_id, cx, cy, w, h in targets:
                x, y, w, h = cx * width, cy * height, w * width, h * height
                if max(w / anchor_w, anchor_w / w, h / anchor_h, anchor_h / h) >= max_ratio:
                    continue
                column, row = math.floor(x), math.floor(y)
                in_x, in_y = x - column, y - row
                if cell == "left" and in_x < 0.5 and x > 1:
                    column -= 1
                elif cell == "up" and in_y < 0.5 and y > 1:
                    row -= 1
                elif cell == "right" and in_x > 0.5 and column + 1 < width:
                    column += 1
                elif cell == "down" and in_y > 0.5 and row + 1 < height:
                    row += 1
                elif cell != "centre":
                    continue
                column, row = min(column, width - 1), min(row, height - 1)
                matches.append((image, anchor, row, column, class_id, x - column, y - row, w, h))
    return matches


def slow_iou(first, second):
    """Return the IoU of two boxes x1, y1, x2, y2."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (areas - width * height)


def slow_tp(boxes, classes, label_boxes, label_classes, thresholds):
    """Return which detections, best first, are true positives: each matches its best label, each label matches once."""
    tp = np.zeros((len(boxes), len(thresholds)), bool)
    for column, threshold in enumerate(thresholds):
        matched = set()
        for i, box in enumerate(boxes):
            ious = [(slow_iou(box, label), -j) for j, label in enumerate(label_boxes) if classes[i] == label_classes[j]]
            best, label = max(ious, default=(0.0, None))
            if best >= threshold and label not in matched:
                matched.add(label)
                tp[i, column] = True
    return tp


def tree_hash(root):
    """Return the modification time and content hash of every path below a folder."""
    state = {}
    for path in sorted(Path(root).rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        state[str(path)] = (path.lstat().st_mtime_ns, content)
    return state


def image_with_rectangle(height, width, box_xyxy, colour=(BRIGHT,) * 3):
    """Return a dark (height, width, 3) image with one bright rectangle."""
    image = np.full((height, width, 3), DARK, np.uint8)
    x1, y1, x2, y2 = box_xyxy
    image[y1:y2, x1:x2] = colour
    return image


def bright_box(image, threshold=190):
    """Return x1, y1, x2, y2 around the pixels whose darkest channel is above the threshold, or None."""
    rows, columns = np.nonzero(image.min(-1) > threshold)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)


def write_data_set(root, *, count=6, splits=("train", "val"), names=("cat", "dog"), seed=0):
    """Write a data set of distinct PNGs with one labelled bright rectangle each; return the path of its yaml."""
    rng = np.random.default_rng(seed)
    for split in splits:
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            height, width = (int(side) for side in rng.permutation([rng.integers(40, 70), rng.integers(71, 120)]))
            x1, y1 = int(rng.integers(2, width // 2)), int(rng.integers(2, height // 2))
            x2, y2 = x1 + int(rng.integers(12, width // 2)), y1 + int(rng.integers(12, height // 2))
            image = image_with_rectangle(height, width, (x1, y1, x2, y2))
            Image.fromarray(image).save(root / "images" / split / f"p{i}.png")
            row = (i % len(names), (x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
            row = (*row, (x2 - x1) / width, (y2 - y1) / height)
            (root / "labels" / split / f"p{i}.txt").write_text(" ".join(f"{value:.8g}" for value in row) + "\n")
    return write_yaml(root, "".join(f"{s}: images/{s}\n" for s in splits) + f"names: [{', '.join(names)}]\n")


def write_yaml(root, text):
    """Write `data.yaml` to a folder; return its path as text, the form of --data."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return str(root / "data.yaml")
