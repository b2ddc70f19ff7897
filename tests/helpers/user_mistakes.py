"""Mistakes that users make, as a table, and a folder with the wrong files that they name."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.helpers.faulty_data import FaultySet
from tests.helpers.small_model import small_checkpoint
from tests.helpers.training_runs import SMALL_MODEL
from utils.files import PROJECT_ROOT

GOOD = "path: good\ntrain: images/train\nval: images/val\n"
NAMES = "names: [car, bus, bike]\n"
# Data yamls, each wrong in one way; {good} are the lines of the paths.
DATA = {
    "tabs": f"{GOOD}names:\n\t0: car\n\t1: bus\n",
    "empty": "",
    "list": "- images/train\n- images/val\n",
    "nonames": GOOD,
    "nc": f"{GOOD}nc: 5\n{NAMES}",
    "gap": f"{GOOD}names: {{0: car, 2: bus}}\n",
    "booleans": f"{GOOD}names: [car, [bus], bike]\n",
    "namestext": f"{GOOD}names: car bus bike\n",
    "notrain": f"path: good\nval: images/val\n{NAMES}",
    "noval": f"path: good\ntrain: images/train\n{NAMES}",
    "wrongpath": f"path: god\ntrain: images/train\nval: images/val\n{NAMES}",
    "wrongval": f"path: good\ntrain: images/train\nval: images/vall\n{NAMES}",
    "emptyfolder": f"path: .\ntrain: nothing\nval: nothing\n{NAMES}",
    "number": f"path: good\ntrain: 5\nval: images/val\n{NAMES}",
    "alias": f"path: good\ntrain: &a images/train\nval: *a\n{NAMES}",
    "key2": f"{GOOD}{NAMES}{NAMES}",
    "tag": f"{GOOD}names: !!python/object/apply:os.getcwd []\n",
    "quote": f"{GOOD}names: ['car, bus]\n",
    "latin": f"{GOOD}names: [caf\xe9]\n",
    "nolabels": f"path: nolabels\ntrain: images\nval: images\n{NAMES}",
    "coco": f"path: cocoset\ntrain: images\nval: images\n{NAMES}",
    "csvset": f"path: csvset\ntrain: images\nval: images\n{NAMES}",
    "fewer": f"{GOOD}names: [car]\n",
    "broken": f"path: broken\ntrain: images\nval: images\n{NAMES}",
    "unreadable": f"{GOOD}{NAMES}",
    "command": f"path: absent\ntrain: images\nval: images\n{NAMES}download: bash get_data.sh\n",
    "listfile": f"path: .\ntrain: list.txt\nval: list.txt\n{NAMES}",
    "good": f"{GOOD}{NAMES}",
    "eighty": f"{GOOD}names: {[f'c{i}' for i in range(80)]}\n",
}
# Label sets, each wrong in its first row: each is also a data yaml, NAME.yaml, to be read with --strict.
LABELS = {
    "class7": "7 0.5 0.5 0.2 0.2\n",
    "halfclass": "0.5 0.5 0.5 0.2 0.2\n",
    "negative": "-1 0.5 0.5 0.2 0.2\n",
    "fourcolumns": "0 0.5 0.5 0.2\n",
    "commas": "0,0.5,0.5,0.2,0.2\n",
    "pixels": "0 56 36 20 12\n",
    "header": "class x y w h\n0 0.5 0.5 0.2 0.2\n",
    "nan": "0 nan 0.5 0.2 0.2\n",
    "name": "car 0.5 0.5 0.2 0.2\n",
    "germancommas": "0 0,5 0,5 0,2 0,2\n",
}
CFG = {
    "unknown": SMALL_MODEL.replace(
        "Conv, [8, 3, 2]]\n  - [-1, 1, Conv, [16", "Convv, [8, 3, 2]]\n  - [-1, 1, Conv, [16"
    ),
    "later": SMALL_MODEL.replace("[-1, 1, Conv, [16", "[7, 1, Conv, [16"),
    "nohead": SMALL_MODEL.split("head:")[0],
    "nodetect": SMALL_MODEL.split("head:")[0] + "head:\n  - [-1, 1, Conv, [8, 1, 1]]\n",
    "anchors": SMALL_MODEL.replace("[30, 61, 62, 45]", "[30, 61, 62]"),
    "levels": SMALL_MODEL.replace(", [30, 61, 62, 45]", ""),
    "points": SMALL_MODEL.replace("Conv, [16, 3, 2]", "AKConv, [16, 0, 2]"),
    "activation": f"activation: nn.ReLLU()\n{SMALL_MODEL}",
    "text": SMALL_MODEL.replace("Conv, [16, 3, 2]", "Conv, [sixteen, 3, 2]"),
    "many": SMALL_MODEL.replace("Conv, [16, 3, 2]", "Conv, [16, 3, 2, 1, 1, true, 5, 5, 5]"),
    "concat": SMALL_MODEL.replace("[-1, 1, Conv, [16, 3, 2]]", "[[0, 1], 1, Concat, [1]]"),
    "nc0": SMALL_MODEL.replace("nc: 80", "nc: 0"),
    "row": SMALL_MODEL.replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, Conv, [16, 3, 2]]"),
    "small": SMALL_MODEL,
    "dropped": SMALL_MODEL.replace("- [[1, 2], 1", "[[1, 2], 1"),
}
HYP = {
    "unknown": "lr: 0.01\n",
    "negative": "lr0: -0.1\n",
    "text": "lr0: fast\n",
    "missing": "lr0: 0.01\nlrf: 0.1\n",
    "list": "- 0.01\n",
    "nan": ".nan",
    "mosaic": "2.0",
}
# A line is: exit code | what the message must contain, separated by commas | command. W/ is the folder of the files;
# data, cfg and weights are good unless the mistake is theirs. `deny` before a command: permissions hold for root too;
# `small`: files have at most 20,000 bytes.
TABLE = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Mistake:
    """A command with its exit code, what its line must contain, and whether permissions or a file size limit hold."""

    command: str
    code: int
    contains: tuple[str, ...]
    limits: str

    def words(self, folder: str) -> list[str]:
        """Return the command with the folder of the wrong files, "" or one that ends in a slash."""
        return [word.replace("W/", folder).replace("LONG", "n" * 300) for word in shlex.split(self.command)]

    def missing(self, line: str, folder: str) -> list[str]:
        """Return what an error line lacks."""
        return [text for text in self.contains if text.replace("W/", folder) not in line]


def mistakes() -> list[Mistake]:
    """Return the table."""
    rows = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        code, texts, command = (part.strip() for part in line.split(" | "))
        limits = next((word for word in ("deny", "small") if command.startswith(f"{word} ")), "")
        contains = tuple(text.strip().replace("\0", ",") for text in texts.replace("\\,", "\0").split(","))
        rows.append(Mistake(command.removeprefix(limits).strip(), int(code), contains, limits))
    return rows


def make_files(folder: Path) -> None:
    """Write the files that the table names, but for the finished run `run/exp` and the exported best.onnx."""
    for name in ("data", "cfg", "hyp", "empty", "nothing", "locked"):
        (folder / name).mkdir(parents=True)
    good = FaultySet(folder / "good", sizes={"train": 4, "val": 3})
    good.write_yaml(names=["car", "bus", "bike"])
    image = good.image("train", 0)
    for name, text in DATA.items():
        text = text.replace("path: ", "path: ../")
        (folder / "data" / f"{name}.yaml").write_bytes(text.encode("latin-1" if name == "latin" else "utf-8"))
    (folder / "data/unreadable.yaml").chmod(0)
    for name, text in LABELS.items():
        wrong = FaultySet(folder / name, sizes={"train": 2, "val": 2})
        for split in ("train", "val"):
            wrong.rewrite(split, lambda row: row)
            for index in (0, 1):
                wrong.write_rows(split, index, text)
        wrong.write_yaml(names=["car", "bus", "bike"])
        wrong.yaml.rename(folder / name / f"{name}.yaml")
    for name, text in CFG.items():
        (folder / "cfg" / f"{name}.yaml").write_text(text)
    standard = (PROJECT_ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    for name, text in HYP.items():
        key = {"nan": "lr0", "mosaic": "mosaic"}.get(name)
        lines = [f"{key}: {text}" if key and line.startswith(f"{key}:") else line for line in standard.splitlines()]
        (folder / "hyp" / f"{name}.yaml").write_text("\n".join(lines) + "\n" if key else text)
    for name in ("nolabels/images", "cocoset/images", "csvset/images", "broken/images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(3):
            shutil.copy(image, folder / name / f"{index}.png")
            if name.startswith("broken"):
                (folder / name / f"{index}.png").write_bytes(image.read_bytes()[:60])
    (folder / "cocoset/annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (folder / "csvset/labels").mkdir()
    (folder / "csvset/labels/all.csv").write_text("image,class,x1,y1,x2,y2\n0.png,car,1,2,30,40\n")
    best = small_checkpoint(folder / "best.pt", "yolov5n-AKConv.yaml").read_bytes()
    for name, content in {
        "empty.pt": b"",
        "cut.pt": best[:-5000],
        "image.pt": image.read_bytes(),
        "secret.pt": best,
        "list.txt": b"missing1.jpg\nmissing2.jpg\n",
        "notes.docx": b"PK\x03\x04 a document",
        "broken.mp4": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9,
        "broken.onnx": b"\x08\x07\x12\x04none" + bytes(40),
        "syntax.py": b"import torch\ndef f(:\n",
        "raises.py": b"import no_such_package\n",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "secret.pt").chmod(0)
    (folder / "locked").chmod(0o500)
    torch.jit.script(torch.nn.Identity()).save(str(folder / "foreign.torchscript"))
