"""What `python -m utils.explain` writes beside its figures: explain.json, report.html and tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.document import Block, BulletList, Gallery, Image, Section, Table, first_of, table_to_text, to_html
from utils.explain.receptive_field import FieldShape
from utils.explain.sanity import CHANGED, STAGES, Similarity, changed
from utils.explain.scores import difference_over_images
from utils.files import atomic_write, dump_json
from utils.log import LOGGER
from utils.metrics.paired_difference import Difference
from utils.options.explain import ExplainOptions

ScoreKey = tuple[int, int, str, str]  # model, layer, method or `erf`, metric
FORMAT_VERSION = 1
ERF, FEATURE_MAPS = "erf", "Feature maps"  # in place of a method; a section
METRICS = {  # in words; all but the last are fractions
    "energy_inside": "energy in the box",
    "points_inside": "pointing game",
    "area_inside": "area of the box",
    "area_20": "area 20 %",
    "area_50": "area 50 %",
    "area_95": "area 95 %",
    "anisotropy": "anisotropy",
}
MAP_METRICS, FIELD_METRICS = tuple(METRICS)[:3], tuple(METRICS)[3:]
STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: .8rem 1rem; }
.gallery figure { margin: 0; min-width: 0; }
.gallery .scroll { background: none; }
.gallery figure img { display: block; width: 100%; max-width: 100%; }
.gallery figcaption { overflow-wrap: anywhere; }
"""
SCORE_NOTE = (
    "Fractions of the map's sum and of its maxima that lie in the labelled box: means over the images where the layer "
    "has a part in the score. A map without information has the energy of the box's area."
)
FIELD_NOTE = (
    "Smallest area, as a fraction of the input, that holds 20, 50 and 95 % of the gradient's energy, and ratio of its "
    "spreads along the two principal axes: means over images. The figures show the mean field, which is larger."
)
DIFFERENCE_NOTE = (
    "Paired over the images where both models have a value, with the 95 % interval of Student's t over other images. "
    "It holds for these weights: other seeds are not covered. Intervals are not corrected for their number."
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
    environment: Mapping[str, Any]  # of the machine
    scores: dict[ScoreKey, np.ndarray] = field(default_factory=dict)  # (images,), nan where there is none
    fields: dict[tuple[int, int], FieldShape] = field(default_factory=dict)  # of the mean energy, by model and layer
    similarity: dict[tuple[int, int, str], Similarity] = field(default_factory=dict)  # by model, layer and method
    figures: dict[str, list[Image]] = field(default_factory=dict)  # by heading
    skipped: list[str] = field(default_factory=list)  # images without an object or detection to explain

    def row(self, model: int, layer: int, method: str) -> list[str]:
        """Return the labels of a model, a layer and a method."""
        label, layers = self.models[model]
        return [label, layers[layer], method]

    def differences(self, seed: int) -> dict[ScoreKey, Difference]:
        """Return the difference of each further model from the first, layer by layer in their order."""
        found = {}
        for key, values in self.scores.items():
            baseline = self.scores.get((0, *key[1:]))
            if key[0] and baseline is not None and key[3] != "area_inside":
                limit = math.inf if key[3] == "anisotropy" else 1.0
                difference = difference_over_images(values, baseline, seed=seed, limit=limit)
                if difference is not None:
                    found[key] = difference
        return found


def write_report(result: Explanation, options: ExplainOptions, *, folder: Path) -> None:
    """Log the tables, and write explain.json and report.html."""
    differences = result.differences(options.seed)
    dump_json(folder / "explain.json", _without_nan(_as_json(result, options, differences)))
    verdict = sanity_verdict(result)
    sections = [Section("Looking inside", _header(result, options), level=1)]
    for heading, note, table in (
        ("Maps against labels", SCORE_NOTE, _score_table(result, MAP_METRICS)),
        ("Effective receptive field", FIELD_NOTE, _score_table(result, FIELD_METRICS)),
        (f"Difference from {result.models[0][0]}", DIFFERENCE_NOTE, _difference_table(result, differences)),
        ("Sanity check", f"{verdict} {SANITY_NOTE}", _sanity_table(result)),
    ):
        if table.rows:
            LOGGER.info(f"\n{heading}\n\n{table_to_text(table)}")
            sections.append(Section(heading, [note, table]))
    if verdict:
        LOGGER.info(f"\n{verdict}")
    for heading, images in result.figures.items():
        sections.append(Section(heading, [Gallery(images)] if heading == FEATURE_MAPS else images))
    page = to_html(sections, title="Looking inside", extra_style=STYLE)
    LOGGER.info(f"Report: {atomic_write(folder / 'report.html', page.encode('utf-8', 'replace'))}")


def _header(result: Explanation, options: ExplainOptions) -> list[Block]:
    """Return what was looked into, and what was skipped."""
    items = [f"{len(result.images)} images; --target {options.target}; --score {options.score}"]
    for (label, layers), weights in zip(result.models, options.weights, strict=True):
        items.append(f"{label}: {weights}; layers {', '.join(layers)}")
    if result.skipped:
        items.append(f"{len(result.skipped)} images have nothing to explain: {', '.join(first_of(result.skipped, 8))}")
    return [BulletList(items)]


def sanity_verdict(result: Explanation) -> str:
    """Return in a sentence how many maps have changed with random weights; "" if none was checked."""
    same = [" ".join(result.row(*key)) for key, stages in sorted(result.similarity.items()) if not changed(stages)]
    total = len(result.similarity)
    count = f"With random weights {total - len(same)} of {total} maps change" if total else ""
    return f"{count}; not those of {', '.join(first_of(same, 6))}." if same else count and f"{count}."


def _format(value: float, *, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if math.isfinite(value) else "unknown"


def _score_table(result: Explanation, metrics: Sequence[str]) -> Table:
    """Return the mean of each metric over images, a row for each model, layer and method."""
    rows = []
    for key in sorted({key[:3] for key in result.scores if key[3] in metrics}):
        means = [_mean(result.scores[(*key, metric)]) for metric in metrics]
        cells = [_format(mean) for mean, _ in means]
        rows.append([" ".join(result.row(*key)), *cells, str(means[0][1])])
    return Table(header=["", *(METRICS[metric] for metric in metrics), "images"], rows=rows)


def _mean(values: np.ndarray) -> tuple[float, int]:
    """Return the mean of the finite values, nan without any, and their number."""
    finite = values[np.isfinite(values)]
    return (float(finite.mean()) if len(finite) else math.nan), len(finite)


def _difference_table(result: Explanation, differences: Mapping[ScoreKey, Difference]) -> Table:
    rows = []
    for (model, layer, method, metric), found in sorted(differences.items()):
        value, low, high = (_format(number, sign="+") for number in (found.value, found.low, found.high))
        name = f"{' '.join(result.row(model, layer, method))}: {METRICS[metric]}"
        rows.append([name, value, f"{low} to {high}" if low != high else low, str(found.num_images)])
    return Table(header=["", "difference", "95 % interval", "images"], rows=rows)


def _sanity_table(result: Explanation) -> Table:
    rows = []
    for key, similarity in sorted(result.similarity.items()):
        cells = [f"{similarity[stage]:.2f}" for stage in STAGES]
        rows.append([" ".join(result.row(*key)), *cells, "yes" if changed(similarity) else "NO"])
    return Table(header=["rank correlation", *(f"random: {stage}" for stage in STAGES), "changed"], rows=rows)


def _as_json(result: Explanation, options: ExplainOptions, differences: Mapping[ScoreKey, Difference]) -> Any:  # noqa: ANN401
    """Return the content of explain.json, which docs/explain.md describes."""

    def labels(model: int, layer: int, method: str, metric: str = "") -> dict[str, str]:
        row = dict(zip(("model", "layer", "method"), result.row(model, layer, method), strict=True))
        return {**row, "metric": metric} if metric else row

    scores = []
    for key, values in sorted(result.scores.items()):
        mean, count = _mean(values)
        scores.append({**labels(*key), "mean": mean, "images": count, "values": values.tolist()})
    compared = []
    for key, found in sorted(differences.items()):
        interval = {name: getattr(found, name) for name in ("value", "low", "high", "p_value")}
        compared.append({**labels(*key), "baseline": labels(0, *key[1:3]), **interval, "images": found.num_images})
    return {
        "format_version": FORMAT_VERSION,
        "options": asdict(options),
        "environment": result.environment,
        "images": list(result.images),
        "skipped": result.skipped,
        "scores": scores,
        "receptive_fields": [{**labels(*key, ERF), **asdict(shape)} for key, shape in result.fields.items()],
        "differences": compared,
        "sanity": [
            {**labels(*key), "rank_correlation": stages, "changed": changed(stages)}
            for key, stages in sorted(result.similarity.items())
        ],
    }


def _without_nan(value: Any) -> Any:  # noqa: ANN401
    """Return a JSON value with null in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
