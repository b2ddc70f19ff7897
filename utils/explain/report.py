"""What `python -m utils.explain` writes beside its figures: explain.json, report.html and tables in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from utils.document import Block, BulletList, Gallery, Image, Section, Table, first_of, table_to_text, to_html
from utils.explain.sanity import CHANGED, STAGES, Similarity, changed
from utils.explain.scores import difference_over_images
from utils.files import atomic_write, dump_json
from utils.log import LOGGER
from utils.options.explain import ExplainOptions
from utils.plots.figure import save_formats
from utils.plots.forest import ForestRow, forest

Row = dict[str, Any]  # of explain.json
MapKey = tuple[int, str, int]  # layer, method or `erf`, and model; sorted, the models of a map are beside each other
FORMAT_VERSION = 1
ERF = "erf"  # in place of a method
FIELDS, FEATURE_MAPS = "Effective receptive field", "Feature maps"  # sections
MAP_METRICS = {"energy_inside": "energy in the box", "points_inside": "pointing game", "area_inside": "area of the box"}
FIELD_METRICS = {"area_20": "area 20 %", "area_50": "area 50 %", "area_95": "area 95 %", "anisotropy": "anisotropy"}
STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: .8rem 1rem; }
.gallery figure { margin: 0; min-width: 0; }
.gallery .scroll { background: none; }
.gallery figure img { display: block; width: 100%; max-width: 100%; }
.gallery figcaption { overflow-wrap: anywhere; }
"""
MAP_NOTE = (
    "Fractions of the map's sum and of its maxima that lie in the labelled box: means over the images where the layer "
    "has a part in the score. A map without information has the energy of the box's area. LayerCAM of one detection is "
    "0 outside the cells that its score depends on, which lie in the box whatever was learned."
)
FIELD_NOTE = (
    "Smallest area, as a fraction of the input, that holds 20, 50 and 95 % of the gradient's energy, and ratio of its "
    "spreads along the two principal axes: means over images. The figures show the mean field, which is larger."
)
DIFFERENCE_NOTE = (
    "Differences from {}, paired over the images where both models have a value, with the 95 % interval of Student's "
    "t, not corrected for the number of intervals. It holds for these weights: other seeds are not covered."
)
SANITY_NOTE = (
    "Rank correlation of each map with that of random weights in the head, in the second half of the rows, and "
    f"everywhere (Adebayo et al. 2018). Changed: below {CHANGED} at the end. A map that does not change shows the "
    "image or the architecture, not what was learned."
)


@dataclass(kw_only=True)
class Explanation:
    """What was found; models, layers and images are numbered in their order."""

    models: Sequence[tuple[str, Sequence[str]]]  # label and layers; the first model is the baseline
    images: Sequence[str]  # names
    scores: dict[MapKey, dict[str, np.ndarray]] = field(default_factory=dict)  # by metric (images,), nan if unknown
    fields: dict[MapKey, dict[str, float]] = field(default_factory=dict)  # `field_shape` of the mean energy
    similarity: dict[MapKey, Similarity] = field(default_factory=dict)
    figures: dict[str, list[Image]] = field(default_factory=dict)  # by heading
    skipped: list[str] = field(default_factory=list)  # images without an object or detection to explain

    def score(self, key: MapKey, image: int, values: Mapping[str, float]) -> None:
        """Add the values of one image by metric."""
        of_map = self.scores.setdefault(key, {metric: np.full(len(self.images), np.nan) for metric in values})
        for metric, value in values.items():
            of_map[metric][image] = value

    def show(self, heading: str, path: Path, caption: str) -> None:
        """Add a figure to a section of the report."""
        self.figures.setdefault(heading, []).append(Image(path, caption))

    def names(self, layer: int, method: str, model: int) -> Row:
        """Return a layer, a method and a model as explain.json names them."""
        label, layers = self.models[model]
        return {"model": label, "layer": layers[layer], "method": method}

    def content(self) -> dict[str, list[Row]]:
        """Return the results as explain.json has them."""
        scores, differences = [], []
        for key, of_map in sorted(self.scores.items()):
            baseline = self.scores.get((*key[:2], 0), {}) if key[2] else {}
            for metric, values in of_map.items():
                names, known = {**self.names(*key), "metric": metric}, values[np.isfinite(values)]
                mean = float(known.mean()) if len(known) else math.nan
                scores.append({**names, "mean": mean, "images": len(known), "values": values.tolist()})
                found = difference_over_images(values, baseline[metric]) if metric in baseline else None
                if found and metric != "area_inside":
                    differences.append({**names, "baseline": self.names(*key[:2], 0), **asdict(found)})
        fields = [{**self.names(*key), **shape} for key, shape in sorted(self.fields.items())]
        sanity = [
            {**self.names(*key), "rank_correlation": stages, "changed": changed(stages)}
            for key, stages in sorted(self.similarity.items())
        ]
        return {"scores": scores, "receptive_fields": fields, "differences": differences, "sanity": sanity}


def write_report(result: Explanation, options: ExplainOptions, *, folder: Path, environment: Mapping[str, Any]) -> None:
    """Log the tables, and write explain.json, report.html and figures of the differences."""
    content = result.content()
    run = {"format_version": FORMAT_VERSION, "options": asdict(options), "environment": environment}
    images = {"images": list(result.images), "skipped": result.skipped}
    everything = json.dumps({**run, **images, **content})
    dump_json(folder / "explain.json", json.loads(everything, parse_constant=lambda _: None))  # null in place of NaN
    sections = [Section("Looking inside", [_header(result, options)], level=1)]
    labels, sanity = [label for label, _ in result.models], content["sanity"]
    for heading, note, metrics, file in (
        ("Maps against labels", MAP_NOTE, MAP_METRICS, "map_differences"),
        (FIELDS, FIELD_NOTE, FIELD_METRICS, "receptive_field_differences"),
    ):
        scores, differences = (
            [row for row in content[of] if row["metric"] in metrics] for of in ("scores", "differences")
        )
        blocks: list[Block] = [note, _score_table(scores, metrics)]
        if differences:
            path = save_formats(_forest(differences, metrics, labels), folder / f"{file}.png", options.figures)
            table, caption = _difference_table(differences, metrics), f"Differences from {labels[0]}"
            blocks += [DIFFERENCE_NOTE.format(labels[0]), table, Image(path, caption)]
        sections += [Section(heading, [*blocks, *result.figures.pop(heading, [])])] if scores else []
    if sanity:
        sections.append(Section("Sanity check", [sanity_verdict(sanity), SANITY_NOTE, _sanity_table(sanity)]))
    for section in sections[1:]:
        tables = [table_to_text(block) for block in section.blocks if isinstance(block, Table)]
        LOGGER.info("\n" + "\n\n".join([section.heading, *tables]))
    if sanity:
        LOGGER.info(f"\n{sanity_verdict(sanity)}")
    for heading, shown in result.figures.items():
        sections.append(Section(heading, [Gallery(shown)] if heading == FEATURE_MAPS else shown))
    page = to_html(sections, title="Looking inside", extra_style=STYLE)
    LOGGER.info(f"Report: {atomic_write(folder / 'report.html', page.encode('utf-8', 'replace'))}")


def _header(result: Explanation, options: ExplainOptions) -> BulletList:
    """Return what was looked into, and what was skipped."""
    items = [f"{len(result.images)} images; --target {options.target}; --score {options.score}"]
    for (label, layers), weights in zip(result.models, options.weights, strict=True):
        items.append(f"{label}: {weights}; layers {', '.join(layers)}")
    if result.skipped:
        items.append(f"{len(result.skipped)} images have nothing to explain: {', '.join(first_of(result.skipped, 8))}")
    return BulletList(items)


def _label(row: Row) -> str:
    """Return the model, layer and method of a row in a few words."""
    return " ".join(row[name] for name in ("model", "layer", "method") if row[name] != ERF)


def _number(value: float, *, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if math.isfinite(value) else "unknown"


def _score_table(scores: Sequence[Row], metrics: Mapping[str, str]) -> Table:
    """Return the mean of each metric over images, a row for each model, layer and method."""
    maps: dict[str, list[Row]] = {}
    for row in scores:
        maps.setdefault(_label(row), []).append(row)
    rows = [
        [label, *(_number(row["mean"]) for row in of_map), str(of_map[0]["images"])] for label, of_map in maps.items()
    ]
    return Table(header=["", *metrics.values(), "images"], rows=rows)


def _difference_table(differences: Sequence[Row], metrics: Mapping[str, str]) -> Table:
    rows = []
    for row in differences:
        value, low, high = (_number(row[name], sign="+") for name in ("value", "low", "high"))
        interval = low if low == high else f"{low} to {high}"
        rows.append([f"{_label(row)}: {metrics[row['metric']]}", value, interval, str(row["images"])])
    return Table(header=["", "difference", "95 % interval", "images"], rows=rows)


def _forest(differences: Sequence[Row], metrics: Mapping[str, str], labels: Sequence[str]) -> Figure:
    """Draw the differences, a panel per metric and a row per model, layer and method."""
    panels: dict[str, list[ForestRow]] = {}
    for row in differences:
        label = _label(row).removeprefix(f"{labels[1]} ") if len(labels) == 2 else _label(row)
        interval = {name: row[name] for name in ("value", "low", "high")}
        panels.setdefault(metrics[row["metric"]], []).append(
            ForestRow(label=label, series=labels.index(row["model"]), **interval)
        )
    return forest(panels, baseline=labels[0])


def _sanity_table(sanity: Sequence[Row]) -> Table:
    rows = [
        [_label(row), *(f"{row['rank_correlation'][stage]:.2f}" for stage in STAGES), "yes" if row["changed"] else "NO"]
        for row in sanity
    ]
    return Table(header=["rank correlation", *(f"random: {stage}" for stage in STAGES), "changed"], rows=rows)


def sanity_verdict(sanity: Sequence[Row]) -> str:
    """Return in a sentence how many maps have changed with random weights."""
    same = [_label(row) for row in sanity if not row["changed"]]
    names = f"; not those of {', '.join(first_of(same, 6))}" if same else ""
    return f"With random weights {len(sanity) - len(same)} of {len(sanity)} maps change{names}."
