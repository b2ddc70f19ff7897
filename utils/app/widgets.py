"""Parts that several tabs of the page share: inputs, settings, and handlers whose errors become a line."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from utils.app.models import LoadedModel, devices
from utils.app.words import Words
from utils.datasets.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from utils.errors import DetectorError
from utils.log import LOGGER
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD

IMAGE_SIZES = (160, 224, 320, 416, 512, 640, 800, 960, 1280)
BUTTONS = ["download", "fullscreen"]  # Gradio also has one that uploads to another server
USERS = 8  # requests that are worked on at the same time
STYLE = """
:root { --font-sans: var(--font); }
.note p { font-size: .9rem; opacity: .85; }
.title { display: flex; gap: 1rem; justify-content: space-between; align-items: baseline; }
.title h1 { font-size: 1.6rem; font-weight: 600; }
.bare, .bare > * { padding: 0 !important; }
.status { min-height: 1.5em; } .status { overflow-wrap: anywhere; white-space: pre-line; }
.report iframe { width: 100%; height: 75vh; border: 1px solid #8886; background: #fff; }
.figures figure { margin: 0 0 1rem; } .figures img { max-width: 100%; height: auto; }
.figures h4 { overflow-wrap: anywhere; }
.figures figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: .6rem; }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } .title h1 { font-size: 1.25rem; } }
"""


def theme() -> gr.themes.Base:
    """Return the look of the page, whose fonts are those of the computer."""
    chinese = ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Droid Sans Fallback")
    return gr.themes.Default(
        font=("system-ui", *chinese, "sans-serif"), font_mono=("ui-monospace", "Consolas", *chinese, "monospace")
    )


def uploaded_image(label: str) -> gr.Image:
    """Add an image whose handlers get the name of the uploaded file: Gradio would decode it without limits."""
    image = gr.Image(label=label, sources=["upload", "webcam", "clipboard"], height=360, buttons=[])
    return _unread(image, lambda payload: None if payload is None else payload.path)


def uploaded_files(label: str) -> gr.File:
    """Add files whose handlers get their names."""
    types = [f".{suffix}" for suffix in sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    files = gr.File(label=label, file_count="multiple", file_types=types, height=200)
    return _unread(files, lambda payload: [file.path for file in payload.root] if payload else None)


def _unread(component: Any, names: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - a component
    """Return an input whose files Gradio neither decodes, nor copies or fetches if the browser names other ones.

    Not by a subclass: Gradio would write a file of its interface beside the module.
    """
    component.preprocess, component.move_resource_to_block_cache = names, lambda name: name
    return component


def figures_html(figures: Sequence[tuple[Path, str]]) -> str:
    """Return images with captions; each opens in a tab of its own."""
    items = []
    for path, caption in figures:
        address, text = html.escape(f"gradio_api/file={quote(str(path))}"), html.escape(caption)
        image = f'<a href="{address}" target="_blank"><img src="{address}" alt="{text}"></a>'
        items.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    return "".join(items)


def controls(words: Words, models: Mapping[str, LoadedModel]) -> list[gr.components.Component]:
    """Add the settings of inference, in the order of `Settings`."""
    names = dict.fromkeys(name for model in models.values() for name in model.metadata.names)
    sizes = [(words("own size"), 0), *((str(size), size) for size in IMAGE_SIZES)]
    with gr.Accordion(words("settings"), open=False):
        conf = gr.Slider(0, 0.99, CONF_THRESHOLD, step=0.01, label=words("conf"))
        iou = gr.Slider(0.05, 1, IOU_THRESHOLD, step=0.05, label=words("iou"))
        with gr.Row():
            size = gr.Dropdown(sizes, value=0, label=words("size"), min_width=120)
            device = gr.Dropdown(devices(), value=devices()[0], label=words("device"), min_width=120)
        classes = gr.Dropdown(list(names), value=[], multiselect=True, label=words("classes"))
    return [conf, iou, size, classes, device]


def drawn_image(label: str) -> gr.Image:
    """Add an image that a handler draws."""
    return gr.Image(label=label, interactive=False, min_width=320, buttons=BUTTONS)


def area(kind: str) -> gr.HTML:
    """Add a place for text: `status`, the line that says what a handler has done, or `figures`, for `figures_html`."""
    return gr.HTML(elem_classes=[kind, "bare"])


def detections_table(words: Words, columns: str = "columns") -> gr.Dataframe:
    """Add a table with the columns of a text of the words."""
    return gr.Dataframe(headers=words(columns).split(","), interactive=False, label=words("table"), max_height=320)


def downloads(words: Words) -> gr.File:
    """Add files to download."""
    return gr.File(label=words("downloads"), file_count="multiple", interactive=False)


def choose_model(models: Mapping[str, LoadedModel], label: str, index: int = 0) -> gr.Dropdown:
    """Add the choice of a model."""
    labels = list(models)
    return gr.Dropdown(labels, value=labels[min(index, len(labels) - 1)], label=label)


def handle(
    words: Words,
    triggers: Sequence[Callable[..., Any]],
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.components.Component],
    *,
    name: str,
) -> None:
    """Call a function on events; its results are a line and further outputs, which an error leaves empty."""

    def guarded(*values: Any) -> Sequence[Any]:  # noqa: ANN401 - of the components
        results: Sequence[Any] = [None] * (len(outputs) - 1)
        try:
            line, *results = function(*values)
        except DetectorError as error:
            line = words("failed", error)
        except Exception as error:  # a user must not stop the server for the others
            LOGGER.error(traceback.format_exc())
            line = words("internal", type(error).__name__)
        return [html.escape(line), *results]

    for index, trigger in enumerate(triggers):
        visibility = "public" if index == 0 else "private"
        trigger(guarded, list(inputs), list(outputs), api_name=name, api_visibility=visibility, concurrency_limit=USERS)
