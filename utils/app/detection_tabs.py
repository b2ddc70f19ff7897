"""The tabs that detect: in an image, in files and videos, and with two models on the same image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from utils.app import widgets
from utils.app.detect import MAX_TABLE_ROWS, detect_files
from utils.app.differences import draw_differences, match_detections
from utils.app.models import LoadedModel, Settings
from utils.app.uploads import Uploads
from utils.app.words import Words
from utils.datasets.image_writing import write_image
from utils.files import write_csv

Models = Mapping[str, LoadedModel]


def detect_tab(words: Words, models: Models, uploads: Uploads) -> None:
    """Add the tab of one image."""
    with gr.Row():
        with gr.Column(min_width=320):
            image, model = widgets.uploaded_image(words("image")), widgets.choose_model(models, words("model"))
            button = gr.Button(words("run"), variant="primary")
            settings = widgets.controls(words, models)
        with gr.Column(min_width=320):
            status, shown = widgets.area("status"), widgets.drawn_image(words("result"))
            table, files = widgets.detections_table(words, "box columns"), widgets.downloads(words)

    def detect(name: str | None, label: str, *values: Any) -> Sequence[Any]:  # noqa: ANN401 - of the settings
        if name is None:
            return words("no image"), None, None, None
        found = detect_files(uploads, [name], models[label], Settings(*values), videos=False)
        (path, caption), *_ = found.annotated
        line = words("found", len(found.rows), found.milliseconds, caption.partition(": ")[2])
        rows = [row[2:] for row in _shown_rows(found.rows)]
        return line, str(path), rows, [str(file) for file in found.downloads("detections")]

    outputs = [status, shown, table, files]
    widgets.handle(words, [button.click], detect, [image, model, *settings], outputs, name="detect")


def _shown_rows(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in rows[:MAX_TABLE_ROWS]]


def files_tab(words: Words, models: Models, uploads: Uploads) -> None:
    """Add the tab of several images and videos."""
    with gr.Row():
        with gr.Column(min_width=320):
            chosen = widgets.uploaded_files(words("uploads"))
            model = widgets.choose_model(models, words("model"))
            button = gr.Button(words("run"), variant="primary")
            settings = widgets.controls(words, models)
        with gr.Column(min_width=320):
            status = widgets.area("status")
            gallery = gr.Gallery(
                label=words("result"),
                columns=2,
                object_fit="contain",
                interactive=False,
                height="auto",
                buttons=widgets.BUTTONS,
            )
            table, files = widgets.detections_table(words), widgets.downloads(words)

    def detect(names: list[str] | None, label: str, *values: Any) -> Sequence[Any]:  # noqa: ANN401
        if not names:
            return words("no file"), None, None, None
        found = detect_files(uploads, names, models[label], Settings(*values))
        lines = [words("found files", len(found.rows), len(found.annotated), found.milliseconds)]
        if len(found.rows) > MAX_TABLE_ROWS:
            lines.append(words("shown rows", MAX_TABLE_ROWS))
        lines += [words("cut", name, uploads.max_frames) for name in found.cut]
        lines += [words("failed", error) for error in found.errors]
        shown = [(str(path), caption) for path, caption in found.annotated]
        downloads = [str(file) for file in found.downloads("detections")]
        return "\n".join(lines), shown, _shown_rows(found.rows), downloads

    outputs = [status, gallery, table, files]
    widgets.handle(words, [button.click], detect, [chosen, model, *settings], outputs, name="detect_files")


def compare_tab(words: Words, models: Models, uploads: Uploads) -> None:
    """Add the tab of two models on the same image."""
    with gr.Row():
        with gr.Column(min_width=320):
            image = widgets.uploaded_image(words("image"))
        with gr.Column(min_width=320):
            labels = [widgets.choose_model(models, words("first")), widgets.choose_model(models, words("second"), 1)]
            button = gr.Button(words("run compare"), variant="primary")
            settings = widgets.controls(words, models)
    status = widgets.area("status")
    with gr.Row():
        shown = [widgets.drawn_image(words(side)) for side in ("first", "second")]
    table, files = widgets.detections_table(words, "compare columns"), widgets.downloads(words)

    def compare(name: str | None, first: str, second: str, *values: Any) -> Sequence[Any]:  # noqa: ANN401
        if name is None:
            return words("no image"), None, None, None, None
        pixels, setting, folder = uploads.read_image(name), Settings(*values), uploads.new_folder()
        pair = models[first], models[second]
        detections = pair[0].detect(pixels, setting)[0], pair[1].detect(pixels, setting)[0]
        matches = match_detections(pair, detections)
        shared = ({m.first for m in matches if m.kind == "both"}, {m.second for m in matches if m.kind == "both"})
        paths = []
        for index, (of_model, found) in enumerate(zip(pair, detections, strict=True)):
            drawn = draw_differences(pixels, of_model, found, shared[index])
            paths.append(str(write_image(folder / f"{index + 1}-{of_model.label}.jpg", drawn)))
        rows = [
            [
                words(f"kind {match.kind}"),
                *pair[0].describe(detections[0], match.first),
                *pair[1].describe(detections[1], match.second),
                round(match.iou, 3),
            ]
            for match in sorted(matches, key=lambda match: match.kind == "both")
        ]
        count = {kind: sum(match.kind == kind for match in matches) for kind in ("both", "class", "first", "second")}
        line = words("compared", count["both"], count["class"], first, count["first"], second, count["second"])
        csv = write_csv(folder / "differences.csv", [words("compare columns").split(","), *rows])
        return line, *paths, rows[:MAX_TABLE_ROWS], [*paths, str(csv)]

    inputs = [image, *labels, *settings]
    widgets.handle(words, [button.click], compare, inputs, [status, *shown, table, files], name="compare")
