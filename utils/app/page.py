"""The page in one language."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from utils.app.browse import Comparison
from utils.app.detection_tabs import compare_tab, detect_tab, files_tab
from utils.app.inspection_tabs import browse_tab, explain_tab
from utils.app.models import LoadedModel
from utils.app.uploads import MEGABYTE, Uploads
from utils.app.words import words_in

OTHER = {"en": "zh", "zh": "en"}


def build_page(
    models: Mapping[str, LoadedModel], uploads: Uploads, comparison: Comparison | None, *, lang: str
) -> gr.Blocks:
    """Return the page.

    Args:
        models: by label.
        uploads: the folder of uploads and its limits.
        comparison: a finished comparison to browse, if there is one.
        lang: "en" or "zh".
    """
    words = words_in(lang)
    with gr.Blocks(title=words("title"), analytics_enabled=False) as page:
        link = f'<a href="../{OTHER[lang]}/">{words("other language")}</a>'
        gr.HTML(f'<div class="title"><h1>{words("title")}</h1>{link}</div>', elem_classes="bare")
        gr.Markdown(words("note"), elem_classes="note")
        with gr.Tab(words("detect")):
            detect_tab(words, models, uploads)
        with gr.Tab(words("files")):
            files_tab(words, models, uploads)
        with gr.Tab(words("compare")):
            if len(models) > 1:
                compare_tab(words, models, uploads)
            else:
                gr.Markdown(words("needs two"))
        with gr.Tab(words("explain")):
            explain_tab(words, models, uploads)
        if comparison is not None:
            with gr.Tab(words("browse")) as tab:
                browse_tab(words, comparison, uploads, tab)
        with gr.Tab(words("help")):
            limits = {
                "files": uploads.max_files,
                "frames": uploads.max_frames,
                "pixels": uploads.max_pixels // MEGABYTE,
            }
            gr.Markdown(words("help text", megabytes=uploads.max_bytes // MEGABYTE, **limits))
    page.queue(max_size=64)
    page.has_launched = True  # makes Gradio check the names of files also where it is mounted in another application
    return page
