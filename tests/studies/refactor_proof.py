"""Prove that a refactor changes no bits: run the scripts, hash what they write, and compare with an earlier record.

Record the tree before the refactor once, then check after every step. A tree is used only through its command-line
scripts and the files they write, so its modules may be renamed freely; for renamed files, keys and columns see RENAMED.

    python -m tests.studies.refactor_proof record FILE.json [--root DIR]
    python -m tests.studies.refactor_proof check FILE.json [--root DIR] [--only train val] [--keep FOLDER]

or `make proof-record RECORD=FILE.json` and `make proof RECORD=FILE.json`. `check` exits with 1 if an item differs, is
missing or is new. A record holds for one machine and one set of installed packages.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.studies.fingerprints import Items, array_digest, digest, read_folder, run_exported
from tests.studies.tree import Tree

# Parts of item names (whole components between slashes) before and after the refactor, applied in this order.
RENAMED = {
    "told": "emitted_warnings",
    "akconv/mean_offset": "akconv/offset_abs_mean",
    "akconv/outside": "akconv/oob_fraction",
    "judged": "predictions",
    "compare.json": "results.json",
    "comparison.json": "manifest.json",
    "images": "num_images",  # in predictions/*.npz
    "detection_images": "image_ids",
    "label_images": "label_image_ids",
    "scores": "confidences",
    "correct": "tp",
    "validation/pictures": "validation/num_images",  # images, renamed as above
    "times_pictures": "images_factor",
    "more_seeds": "extra_seeds",
    "figures": "metrics",
    "spread": "std",
}
SMALL = ("--data", "tiny.yaml", "--imgsz", "96", "--device", "cpu")
TRAINING = {
    "plain-sgd": ("--cfg", "yolov5n.yaml", "--optimizer", "SGD", "--workers", "0", "--noplots"),
    "akconv-sgd": ("--cfg", "yolov5n-AKConv.yaml", "--optimizer", "SGD", "--workers", "2", "--noplots"),
    "akconv-adamw": ("--cfg", "yolov5n-AKConv.yaml", "--optimizer", "AdamW", "--workers", "0"),
    "plain-adamw": ("--cfg", "yolov5n.yaml", "--optimizer", "AdamW", "--workers", "2", "--noplots"),
}
INTERRUPTED = "akconv-sgd"
RESUMED = "items that differ from the uninterrupted run"
AKCONV, PLAIN = "train/akconv-adamw/weights/best.pt", "train/plain-adamw/weights/best.pt"
VALIDATION = {
    "save": (AKCONV, "--save-txt", "--save-conf", "--save-json", "--verbose"),
    "augment": (AKCONV, "--augment", "--noplots"),
    "test": (AKCONV, "--task", "test", "--save-txt", "--noplots"),
    "ensemble": (AKCONV, PLAIN, "--save-txt", "--save-conf", "--noplots"),
}
DETECTION = {
    "save": ("--save-txt", "--save-conf", "--save-csv", "--save-crop", "--visualize", "--visualize-layers", "1", "7"),
    "augment": ("--augment", "--agnostic-nms", "--save-txt", "--save-format", "1"),
}
EXPORTS = {
    "akconv": (AKCONV, "--include", "onnx", "torchscript"),
    "plain": (PLAIN, "--include", "onnx", "torchscript"),
    "half": (AKCONV, "--include", "onnx", "torchscript", "--half"),
    "simplify": (AKCONV, "--include", "onnx", "--simplify"),
    "nms": (AKCONV, "--include", "onnx", "--nms", "--conf-thres", "0.001"),
    "agnostic-nms": (
        AKCONV,
        "--include",
        "onnx",
        "--nms",
        "--agnostic-nms",
        "--conf-thres",
        "0.001",
        "--topk-all",
        "9",
    ),
    "openvino": (AKCONV, "--include", "openvino"),
}
PARTS = ("train", "val", "detect", "compare", "export")


def train(tree: Tree) -> Iterator[tuple[str, str]]:
    """Four trainings, and one of them interrupted and resumed, which must end the same."""
    written = ("weights/last.pt", "weights/best.pt", "summary.json", "*.csv", "*_batch*.jpg")
    common = (*SMALL, "--hyp", "hyp.yaml", "--epochs", "2", "--batch-size", "4", "--project", "train", "--name")
    for name, words in TRAINING.items():
        tree.run("train.py", *words, *common, name)
        yield from read_folder(tree.work / "train" / name, f"train/{name}", *written)
    resumed = f"{INTERRUPTED}-resumed"
    tree.interrupt(tree.work / "train" / resumed, "train.py", *TRAINING[INTERRUPTED], *common, resumed)
    tree.run("train.py", "--resume", f"train/{resumed}/weights/last.pt")
    whole, parts = (
        # Not the state of torch's generator: each start of a data loader draws a seed from it that nothing uses.
        {
            name: value
            for name, value in read_folder(folder, "run", *written)
            if not re.search(r"/(random|rng\w*)$", name)
        }
        for folder in (tree.work / "train" / INTERRUPTED, tree.work / "train" / resumed)
    )
    different = sorted(name for name in whole.keys() | parts.keys() if whole.get(name) != parts.get(name))
    if different:
        print(f"the resumed run differs from the uninterrupted one in {len(different)} items: {different[:20]}")
    yield f"train/{resumed}/{RESUMED}", str(len(different))
    yield from ((name.replace("run", f"train/{resumed}", 1), value) for name, value in parts.items())


def val(tree: Tree) -> Iterator[tuple[str, str]]:
    for name, words in VALIDATION.items():
        split = () if "--task" in words else ("--task", "train")  # of the training images it knows a little
        common = (*SMALL, *split, "--workers", "0", "--conf-thres", "0.001", "--project", "val", "--name", name)
        printed = tree.run("val.py", "--weights", *words, *common)
        for row in re.findall(r"(?m)^\s*(\w+)\s+(\d+\s+\d+(?:\s+[\d.e-]+){4})$", printed):
            yield f"val/{name}/table/{row[0]}", " ".join(row[1].split())
        yield from read_folder(
            tree.work / "val" / name, f"val/{name}", "labels/*.txt", "*.json", "*.csv", "*_batch*.jpg"
        )


def detect(tree: Tree) -> Iterator[tuple[str, str]]:
    written = ("**/*.txt", "**/*.csv", "**/*.jpg", "sampling/*_model*.png")
    for name, words in DETECTION.items():
        common = ("--source", "shapes/images/test", "--conf-thres", "0.001", "--max-det", "12")
        tree.run("detect.py", "--weights", AKCONV, *SMALL, *common, *words, "--project", "detect", "--name", name)
        yield from read_folder(tree.work / "detect" / name, f"detect/{name}", *written)


def compare(tree: Tree) -> Iterator[tuple[str, str]]:
    models = ("--cfg", "yolov5n.yaml", "yolov5n-AKConv.yaml", "--optimizer", "AdamW", "--seeds", "0", "1")
    length = ("--hyp", "hyp.yaml", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--noplots")
    tree.run("compare.py", *models, *SMALL, *length, "--project", "compare", "--name", "two")
    yield from read_folder(tree.work / "compare/two", "compare", "*.json", "**/*.npz", "*/results.csv")


def export(tree: Tree) -> Iterator[tuple[str, str]]:
    inputs = [
        torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in ((1, 3, 96, 96), (2, 3, 64, 128))
    ]
    torch.set_num_threads(1)
    for name, (weights, *words) in EXPORTS.items():
        if "openvino" in words and importlib.util.find_spec("openvino") is None:
            continue
        folder = tree.work / "export" / name
        folder.mkdir(parents=True)
        shutil.copy(tree.work / weights, folder / "best.pt")
        tree.run("export.py", "--weights", f"export/{name}/best.pt", "--imgsz", "96", *words)
        for path in sorted(path for path in folder.iterdir() if path.suffix != ".pt"):
            nodes, outputs = run_exported(path, [image.numpy() for image in inputs])
            yield f"export/{name}/{path.suffix[1:]}/graph", f"{len(nodes)} nodes {digest(' '.join(nodes).encode())}"
            for index, output in enumerate(outputs):
                yield f"export/{name}/{path.suffix[1:]}/output {index}", f"{output.shape} {array_digest(output)}"


def renamed(items: Items) -> Items:
    """Apply RENAMED to the names of items."""
    new: Items = {}
    for name, value in items.items():
        for old, standard in RENAMED.items():
            name = re.sub(rf"(?<![^/]){re.escape(old)}(?![^/])", standard, name)
        new[name] = value
    return new


def collect(root: Path, parts: list[str], keep: Path | None) -> Items:
    """Run a tree's scripts. Weights come from the trainings, so these run in any case."""
    with tempfile.TemporaryDirectory() as scratch:
        work = keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        tree, items = Tree(root, work.resolve()), {}
        for part, record in zip(PARTS, (train, val, detect, compare, export), strict=True):
            start = time.monotonic()
            if part in parts or (part == "train" and parts != ["compare"]):
                new = dict(record(tree))
                items |= new if part in parts else {}
                print(f"{part}: {len(new)} items in {time.monotonic() - start:.0f} s", flush=True)
    return items


def report(before: Items, after: Items) -> bool:
    """Print a table of groups, then every item that is not the same; return whether all are."""
    states = {
        name: "missing" if name not in after else "new" if name not in before else "DIFFERENT"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
    total, odd = (Counter("/".join(name.split("/")[:2]) for name in names) for names in (before.keys() | after, states))
    print(f"\n{'group':32}{'same':>8}{'not':>8}")
    for group in sorted(total):
        print(f"{group:32}{total[group] - odd[group]:8}{odd[group]:8}")
    for name, state in states.items():
        print(f"{state:10}{name}: {before.get(name, '-')} -> {after.get(name, '-')}")
    print(f"{len(before.keys() | after) - len(states)} items are the same, {len(states)} are not")
    return not states


def main() -> None:
    """Record or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="tree whose scripts run")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to record or check")
    parser.add_argument("--keep", type=Path, help="new folder for everything that is written")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        parser.error(f"--keep {options.keep} exists already: name a new folder")
    os.nice(10)
    items = collect(options.root.resolve(), options.only, options.keep)
    if options.action == "record":
        options.file.write_text(json.dumps(items, indent=0) + "\n")
        sys.exit(any(name.endswith(RESUMED) and value != "0" for name, value in items.items()))
    recorded = {
        name: v for name, v in json.loads(options.file.read_text()).items() if name.split("/")[0] in options.only
    }
    sys.exit(not report(renamed(recorded), renamed(items)))


if __name__ == "__main__":
    main()
