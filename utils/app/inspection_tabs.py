"""The tabs that look inside: at a position of an image in a model, and into a finished comparison."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from utils.app import widgets
from utils.app.browse import KINDS, REPORT, Comparison, Filter
from utils.app.explain import VIEWS, explain_position
from utils.app.models import LoadedModel, Settings
from utils.app.uploads import Uploads
from utils.app.words import Words
from utils.datasets.image_writing import write_image
from utils.inference.sampling_points import akconv_layers
from utils.metrics.object_size import SIZES
from utils.options.explain import METHODS

IMAGES_PER_PAGE = 6
SHOWN_LAYERS = 4  # at first; more can be chosen

Models = Mapping[str, LoadedModel]


def _layer_choices(model: LoadedModel) -> tuple[list[str], list[str]]:
    """Return the names of a model's AKConv layers, and those that are shown at first, spread over its depth."""
    names = list(akconv_layers(model.model)) if model.has_akconv else []
    return names, names[:: max(math.ceil(len(names) / SHOWN_LAYERS), 1)]


def explain_tab(words: Words, models: Models, uploads: Uploads) -> None:
    """Add the tab of sampling points, offsets, maps and fields."""
    first = next((i for i, model in enumerate(models.values()) if model.has_akconv), 0)
    names, shown_at_first = _layer_choices(list(models.values())[first])
    with gr.Row():
        with gr.Column(min_width=320):
            gr.Markdown(f"**{words('click')}**")
            image, model = widgets.uploaded_image(words("image")), widgets.choose_model(models, words("model"), first)
            with gr.Row():
                x = gr.Number(0, label=words("x"), minimum=0, min_width=100)
                y = gr.Number(0, label=words("y"), minimum=0, min_width=100)
            button = gr.Button(words("run explain"), variant="primary")
            layers = gr.Dropdown(names, value=shown_at_first, multiselect=True, label=words("layers"))
            views = gr.CheckboxGroup([(words(view), view) for view in VIEWS], value=list(VIEWS), label=words("views"))
            method = gr.Dropdown(list(METHODS), value=METHODS[0], label=words("method"))
            settings = widgets.controls(words, models)
        with gr.Column(scale=2, min_width=320):
            status = widgets.area("status")
            figures = widgets.area("figures")

    def explain(
        name: str | None,
        label: str,
        at_x: float,
        at_y: float,
        chosen: list[str],
        kinds: list[str],
        cam: str,
        *values: Any,  # noqa: ANN401 - of the settings
    ) -> Sequence[Any]:
        if name is None:
            return words("no image"), None
        xy, folder = (float(at_x or 0), float(at_y or 0)), uploads.new_folder()
        result = explain_position(
            models[label],
            uploads.read_image(name),
            xy,
            Settings(*values),
            views=kinds,
            layers=chosen,
            method=cam,
            folder=folder,
            lang=words("language"),
        )
        lines = [words("position", *xy)]
        if any(view == "sampling" for view, _, _ in result.figures):
            lines.append(words("legend"))
        if not models[label].has_akconv:
            lines.append(words("no akconv", label))
        if "cam" in kinds:
            lines.append(words("explained", result.target) if result.target else words("no target"))
        shown = [(path, f"{words(view)} {detail}") for view, detail, path in result.figures]
        return " ".join(lines), widgets.figures_html(shown)

    def layers_of(label: str) -> Any:  # noqa: ANN401 - Gradio's update
        every, some = _layer_choices(models[label])
        return gr.update(choices=every, value=some)

    def clicked(event: gr.SelectData) -> tuple[int, int]:
        return event.index[0], event.index[1]

    model.change(layers_of, model, layers, api_visibility="private")
    at_click = image.select(clicked, None, [x, y], api_visibility="private")
    inputs = [image, model, x, y, layers, views, method, *settings]
    widgets.handle(words, [button.click, at_click.then], explain, inputs, [status, figures], name="explain")


def browse_tab(words: Words, comparison: Comparison, uploads: Uploads, tab: gr.Tab) -> None:
    """Add the tab of a finished comparison, shown when it is selected."""

    def choice(key: str, options: Sequence[tuple[str, str]], value: str = "") -> gr.Dropdown:
        shown = [*options] if value else [(words("all"), ""), *options]
        return gr.Dropdown(shown, value=value, label=words(key), min_width=140)

    with gr.Tab(words("images")):
        with gr.Row():
            kind = choice("kind", [(words(kind), kind) for kind in KINDS], KINDS[0])
            model = choice("model", [(run.model, run.model) for run in comparison.runs])
            of_class = choice("class", [(name, str(i)) for i, name in enumerate(comparison.names)])
            size = choice("object size", [(words(size), size) for size in SIZES])
            number = gr.Number(1, label=words("page"), minimum=1, precision=0, min_width=100)
        status = widgets.area("status")
        figures = widgets.area("figures")
    with gr.Tab(words("report")):
        link = f'<a href="/{REPORT}" target="_blank">{words("open report")}</a>'
        gr.HTML(f'{link}<iframe src="/{REPORT}" sandbox loading="lazy"></iframe>', elem_classes="report")

    def show(boxes: str, label: str, class_id: str, object_size: str, page: float) -> Sequence[Any]:
        chosen = int(class_id) if class_id else None
        wanted = Filter(kind=boxes, class_id=chosen, size=object_size or None, model=label or None)
        images, folder = comparison.images(wanted), uploads.new_folder()
        pages = max(math.ceil(len(images) / IMAGES_PER_PAGE), 1)
        start = (min(max(int(page or 1), 1), pages) - 1) * IMAGES_PER_PAGE
        sections = []
        for image_id in images[start : start + IMAGES_PER_PAGE]:
            panels = []
            for index, (run, pixels) in enumerate(comparison.panels(image_id, wanted)):
                caption = words("labels") if run is None else words("f1", run.title, run.f1[:, image_id].mean())
                panels.append((write_image(folder / f"{image_id:06d}-{index}.jpg", pixels), caption))
            name = html.escape(comparison.name(image_id))
            sections.append(f'<h4>{name}</h4><div class="panels">{widgets.figures_html(panels)}</div>')
        line = words("browsed", len(images), len(comparison.order))
        return f"{words('page of', start // IMAGES_PER_PAGE + 1, pages)} {line}", "".join(sections)

    inputs = [kind, model, of_class, size, number]
    events = [tab.select, *(component.input for component in inputs)]
    widgets.handle(words, events, show, inputs, [status, figures], name="browse")
