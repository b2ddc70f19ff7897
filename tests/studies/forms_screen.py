"""Which keywords of AKConv are worth long runs: a fractional factorial design on the embedded data set.

    python -m tests.studies.forms_screen --project runs/forms-screen

Six two-level factors in 16 runs (2^(6-2), resolution IV: main effects are not confounded with interactions of two
factors), each with a seed of its own, and four runs of plain yolov5n. The design, the figure and the decision are
those of docs/experiments/akconv-forms.md. Finished runs are kept, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from utils.metrics.student_t import two_sided_p_value, two_sided_quantile

ROOT = Path(__file__).parents[2]
BASE = ROOT / "models/yolov5n-AKConv-light.yaml"
HYP = ROOT / "data/hyps/hyp.demo.yaml"
KEYWORDS = "8, 2, {offsets: depthwise, points: centered, padding: zeros}"
FACTORS = ("offsets: conv", "modulated", "symmetric", "offset_lr 0.01", "4 points", "jitter 0.25")
RECIPE = ("--data", "shapes.yaml", "--imgsz", "160", "--batch-size", "8", "--epochs", "40", "--optimizer", "AdamW")
PLAIN_SEEDS = range(4)


def design() -> np.ndarray:
    """Return the levels, (16, 6) of -1 and 1: the fifth factor is ABC, the sixth BCD."""
    levels = np.array(list(itertools.product((-1, 1), repeat=4)))
    a, b, c, d = levels.T
    return np.column_stack((levels, a * b * c, b * c * d))


def write_variant(row: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """Write the model and hyperparameter yamls of one row of the design and return their paths."""
    conv, modulated, symmetric, slow, four, jitter = (row > 0).tolist()
    keywords = [f"offsets: {'conv' if conv else 'depthwise'}", "points: centered", "padding: zeros"]
    keywords += ["modulated: true"] * modulated + ["gradient: symmetric"] * symmetric + ["jitter: 0.25"] * jitter
    model, hyp = folder / "model.yaml", folder / "hyp.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    arguments = f"{4 if four else 8}, 2, {{{', '.join(keywords)}}}"
    model.write_text(BASE.read_text(encoding="utf-8").replace(KEYWORDS, arguments), encoding="utf-8")
    slower = HYP.read_text(encoding="utf-8").replace("offset_lr: 0.1", f"offset_lr: {0.01 if slow else 0.1}")
    hyp.write_text(slower, encoding="utf-8")
    return model, hyp


def train(cfg: Path, hyp: Path, seed: int, project: Path, name: str) -> float:
    """Train one model unless it is finished, and return mAP50-95 of best.pt on the validation split."""
    summary = project / name / "summary.json"
    if not summary.is_file():
        command = [sys.executable, "train.py", "--cfg", str(cfg), "--hyp", str(hyp), "--seed", str(seed), *RECIPE]
        command += ["--workers", "0", "--device", "cpu", "--project", str(project), "--name", name, "--exist-ok"]
        subprocess.run([*command, "--noplots"], cwd=ROOT, check=True)
    return float(json.loads(summary.read_text(encoding="utf-8"))["map50_95"])


def report(scores: np.ndarray, plain: np.ndarray) -> str:
    """Return the table of main effects (difference of the means of both levels), with 95 % intervals.

    The error is estimated from the nine contrasts that are no main effects, and from the repetitions of plain yolov5n.
    """
    levels = design()
    products = [np.prod(levels[:, list(ij)], axis=1) for ij in itertools.combinations(range(6), 2)]
    main = np.column_stack((np.ones(16), levels))
    others = np.linalg.qr(np.column_stack((main, *products, levels[:, 0] * levels[:, 1] * levels[:, 3])))[0][:, 7:16]
    squares = float(np.square(others.T @ (scores - main @ (main.T @ scores) / 16)).sum())
    degrees = 9 + len(plain) - 1
    deviation = np.sqrt((squares + float(np.square(plain - plain.mean()).sum())) / degrees)
    half = two_sided_quantile(0.95, degrees) * deviation / 2  # an effect is the difference of two means of eight
    lines = [f"standard deviation of a run {deviation:.4f}, {degrees} degrees of freedom", ""]
    lines += ["| factor | effect on mAP50-95 | p |", "|---|---|---|"]
    for factor, column in zip(FACTORS, levels.T, strict=True):
        effect = float(column @ scores) / 8
        p = two_sided_p_value(effect / (deviation / 2), degrees)
        lines.append(f"| {factor} | {effect:+.4f} [{effect - half:+.4f}, {effect + half:+.4f}] | {p:.3f} |")
    difference = scores.mean() - plain.mean()
    error = two_sided_quantile(0.95, degrees) * deviation * np.sqrt(1 / 16 + 1 / len(plain))
    lines.append(f"\nmean of the 16 forms minus plain: {difference:+.4f} [{difference - error:+.4f}, ")
    lines[-1] += f"{difference + error:+.4f}]; plain {plain.mean():.4f}"
    return "\n".join(lines)


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=ROOT / "runs/forms-screen", help="folder of the runs")
    project = parser.parse_args().project.resolve()
    # Two rows of the design, then a plain run, and so on: an interrupted study has both.
    scores, plain = np.zeros(16), np.zeros(len(PLAIN_SEEDS))
    for seed in np.random.default_rng(17).permutation(16):
        files = write_variant(design()[seed], project / "yamls" / str(seed))
        scores[seed] = train(*files, int(seed), project, f"form{seed}")
        if seed % 4 == 0:
            plain[seed // 4] = train(ROOT / "models/yolov5n.yaml", HYP, int(seed) // 4, project, f"plain{seed // 4}")
    for row, score in zip(design(), scores, strict=True):
        switched = [factor for factor, level in zip(FACTORS, row, strict=True) if level > 0]
        print(f"{score:.4f}  {', '.join(switched) or 'none'}")
    print("\n" + report(scores, plain))


if __name__ == "__main__":
    main()
