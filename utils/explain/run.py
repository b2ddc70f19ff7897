"""The work of `python -m utils.explain`: maps, fields and figures of every model and image, then the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from utils.datasets.letterbox import letterbox
from utils.explain.cam import activation_maps, normalize
from utils.explain.inputs import ExplainedModel, InputImage, inference_config, open_models, read_images
from utils.explain.layers import record_maps
from utils.explain.receptive_field import FRACTIONS, energy_levels, field_shape, receptive_fields
from utils.explain.report import ERF, FEATURE_MAPS, FIELD_METRICS, FIELDS, Explanation, write_report
from utils.explain.sanity import compare_randomized
from utils.explain.scores import box_mask, map_scores
from utils.explain.target import Target, choose_target
from utils.files import make_run_dir
from utils.inference.predict import InferenceConfig
from utils.inference.sampling_figure import plot_layer, sample_image
from utils.inference.sampling_points import akconv_layers, box_centers, locations_inside
from utils.log import LOGGER
from utils.options.explain import ExplainOptions
from utils.output_names import OutputNames
from utils.plots.explain import ModelMaps, plot_feature_maps, plot_field_energy, plot_maps, plot_receptive_fields
from utils.plots.figure import save_formats
from utils.plugins import load_plugins
from utils.runtime import describe_environment, scale_pixels, select_device

MAX_SANITY_IMAGES = 4
MAX_DETAILED = 4  # images whose feature maps and sampling points are drawn
MAX_CHANNELS = 16
LONGEST_ENDING = "_" * 100  # of a file's name: model, layer, suffix


def run_explain(options: ExplainOptions) -> Path:
    """Look into the models and return the run's folder; DetectorError if an input is invalid."""
    device = select_device(options.device)
    load_plugins(options.plugins)
    models = open_models(options, device)
    config = inference_config(options, models)
    images = read_images(options, models[0], config)
    result = Explanation(
        models=[(model.label, model.layers) for model in models], images=[image.name for image in images]
    )
    folder = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    run = _Run(options=options, models=models, config=config, images=images, folder=folder, result=result)
    names = OutputNames()
    for number, image in enumerate(images):
        LOGGER.info(f"image {number + 1}/{len(images)} {image.name}")
        stem = names.claim(Path(image.name).stem, suffix=LONGEST_ENDING)
        run.draw_maps(number, stem)
        if number < MAX_DETAILED:
            run.draw_details(number, stem)
    if options.erf:
        run.draw_receptive_fields()
    run.check_sanity()
    write_report(result, options, folder=folder, environment=describe_environment(device))
    return folder


@dataclass(kw_only=True)
class _Run:
    """The models and images of a run, and what was found so far."""

    options: ExplainOptions
    models: Sequence[ExplainedModel]
    config: InferenceConfig
    images: Sequence[InputImage]
    folder: Path
    result: Explanation
    targets: dict[tuple[int, int], Target] = field(default_factory=dict)  # by model and image

    def _pixels(self, image: np.ndarray) -> Tensor:
        """Return a (1, 3, H, W) input of an (H, W, 3) uint8 image."""
        device = next(self.models[0].network.parameters()).device
        return scale_pixels(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None], device)

    def _show(self, heading: str, figure: Figure, name: str, caption: str) -> None:
        """Write a figure below the run's folder, and add it to a section of the report."""
        path = save_formats(figure, self.folder / f"{name}.png", self.options.figures)
        self.result.show(heading, path, caption)

    def draw_maps(self, number: int, stem: str) -> None:
        """Compute, score and draw the class activation maps of one image, a figure per method."""
        image, options = self.images[number], self.options
        pixels = self._pixels(image.preprocessed.image)
        shown: dict[str, list[ModelMaps]] = {method: [] for method in options.method}
        for index, model in enumerate(self.models):
            with torch.no_grad():
                predictions = model.network(pixels)[0][0]
            target = choose_target(
                options.target,
                predictions,
                labels=image.labels,
                class_id=model.class_id,
                position_xy=image.position_xy if options.target == "detection" else None,
                score=options.score,
            )
            if target is None:
                continue
            self.targets[index, number] = target
            text = target.describe(predictions, model.metadata.names)
            box = target.box(predictions) if options.target == "detection" else None
            for method, maps in self._maps(index, number, pixels).items():
                shown[method].append(ModelMaps(model=model.label, text=text, box=box, maps=maps))
        of_image = [target for (_, n), target in self.targets.items() if n == number]
        if not of_image:
            LOGGER.warning(f"{image.name} has no such object or detection to explain")
            self.result.skipped.append(image.name)
            return
        for method, models in shown.items():
            figure = plot_maps(image.preprocessed.image, models, method=method, truth_xyxy=of_image[0].truth)
            caption = f"{image.name}, {method}: {'; '.join(f'{model.model} {model.text}' for model in models)}"
            self._show("Class activation maps", figure, f"maps/{stem}_{method}", caption)

    def _maps(self, index: int, number: int, pixels: Tensor) -> dict[str, list[tuple[str, np.ndarray | None]]]:
        """Return the maps of one model and image by method, with a title for each layer, and score them."""
        model, target = self.models[index], self.targets[index, number]
        raw = activation_maps(model.network, pixels, target, layers=model.layers, methods=self.options.method)
        size_hw = (pixels.shape[2], pixels.shape[3])
        mask = box_mask(target.truth, size_hw)
        found: dict[str, list[tuple[str, np.ndarray | None]]] = {}
        for (layer, method), values in raw.items():
            heat, note = None, "no part in the score"
            if values is not None:
                heat = normalize(values, size_hw).numpy()
                note = "" if heat.any() else "no positive value"
                if len(target.truth):
                    scores = map_scores(heat, mask)
                    self.result.score((model.layers.index(layer), method, index), number, scores)
                    note = note or f"{scores['energy_inside']:.0%} in the box"
            found.setdefault(method, []).append((f"{layer}\n{note}", heat))
        return found

    def draw_details(self, number: int, stem: str) -> None:
        """Draw feature maps, if asked for, and where AKConv layers in the chosen layers sample at the object."""
        image = self.images[number]
        size_hw = (image.image.shape[0], image.image.shape[1])
        for index, model in enumerate(self.models):
            chosen = model.layers if self.options.feature_maps else []
            with torch.no_grad(), record_maps(model.network, chosen) as outputs:
                model.network(self._pixels(image.preprocessed.image))
            for name, output in outputs.items():
                maps = output[0].cpu()
                channels = maps.flatten(1).var(1, unbiased=False).argsort(descending=True)[:MAX_CHANNELS].tolist()
                title = f"{model.label} {name}\n{len(channels)} of {len(maps)} channels, the most variable first"
                figure = plot_feature_maps(maps[channels].numpy(), channels, title=title)
                caption = f"{image.name}, {model.label} {name}"
                self._show(FEATURE_MAPS, figure, f"features/{stem}_{model.label}_{name}", caption)
            target = self.targets.get((index, number))
            truth = image.preprocessed.transform.to_original(target.truth) if target else np.zeros((0, 4))
            locations = box_centers(truth, [""] * len(truth), size_hw)
            if self.options.position:
                locations = locations_inside([(self.options.position[0], self.options.position[1])], size_hw)
            below = tuple(f"{name}." for name in model.layers)
            layers = {n: layer for n, layer in akconv_layers(model.network).items() if f"{n}.".startswith(below)}
            samplings = sample_image(model.network, layers, image.preprocessed) if layers else {}
            for name, sampling in samplings.items():
                path = self.folder / "sampling" / f"{stem}_{model.label}_{name}.png"
                plot_layer(sampling, image.image, image.preprocessed, locations, path)
                self.result.show("Sampling points", path, f"{image.name}, {model.label} {name}")

    def draw_receptive_fields(self) -> None:
        """Compute, score and draw the effective receptive fields: one mean over all images for each layer."""
        height, width = self.config.size_hw
        inputs = [letterbox(image.image, self.config.size_hw) for image in self.images]
        at = (0.5, 0.5)
        if self.options.position:
            x, y = inputs[0][1].to_input(np.array(self.options.position * 2, np.float32))[:2].tolist()
            at = (x / width, y / height)
        levels: dict[str, dict[str, np.ndarray]] = {}
        for index, model in enumerate(self.models):
            LOGGER.info(f"{model.label}: effective receptive fields of {len(model.layers)} layers")
            sums = [np.zeros((height, width)) for _ in model.layers]
            for number, (padded, _) in enumerate(inputs):
                fields = receptive_fields(model.network, self._pixels(padded), layers=model.layers, position=at)
                for column, energy in enumerate(fields.values()):
                    sums[column] += energy
                    shape = field_shape(energy)
                    scores = {metric: shape[metric] for metric in FIELD_METRICS}
                    self.result.score((column, ERF, index), number, scores)
            for column, energy in enumerate(sums):
                self.result.fields[column, ERF, index] = field_shape(energy)
            levels[model.label] = dict(zip(model.layers, map(energy_levels, sums), strict=True))
        figure = plot_receptive_fields(levels, fractions=list(FRACTIONS.values()), position=at)
        self._show(FIELDS, figure, "receptive_fields", f"Mean over {len(inputs)} images")
        caption = "Energy held by the strongest pixels, over their area"
        self._show(FIELDS, plot_field_energy(levels), "receptive_field_energy", caption)

    def check_sanity(self) -> None:
        """Compare the maps of the first images with those of random weights."""
        LOGGER.info("sanity check: maps of models with random weights")
        for index, model in enumerate(self.models):
            numbers = [number for of_model, number in self.targets if of_model == index][:MAX_SANITY_IMAGES]
            images = [(self._pixels(self.images[n].preprocessed.image), self.targets[index, n]) for n in numbers]
            compared = compare_randomized(
                model.network, images, layers=model.layers, methods=self.options.method, seed=self.options.seed
            )
            for (layer, method), similarity in compared.items():
                self.result.similarity[model.layers.index(layer), method, index] = similarity
