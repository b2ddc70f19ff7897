"""The work of `python -m utils.explain`: maps, fields and figures of every model and image, then the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.datasets.letterbox import letterbox
from utils.document import Image
from utils.explain.cam import activation_maps, normalize
from utils.explain.feature_maps import feature_maps, strongest_channels
from utils.explain.inputs import ExplainedModel, InputImage, inference_config, open_models, read_images
from utils.explain.receptive_field import FRACTIONS, energy_levels, field_shape, receptive_fields
from utils.explain.report import ERF, FEATURE_MAPS, Explanation, ScoreKey, write_report
from utils.explain.sanity import compare_randomized
from utils.explain.scores import box_mask, energy_inside, points_inside
from utils.explain.target import Target, choose_target
from utils.files import make_run_dir
from utils.inference.predict import InferenceConfig
from utils.inference.sampling_figure import plot_layer, sample_image
from utils.inference.sampling_points import akconv_layers, box_centers, locations_inside
from utils.log import LOGGER
from utils.options.explain import ExplainOptions
from utils.output_names import OutputNames
from utils.plots.explain import MapPanel, plot_feature_maps, plot_field_energy, plot_maps, plot_receptive_fields
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
    config = inference_config(options, models, device)
    images = read_images(options, models[0], config)
    positions = [image.position(options.position) if options.position else None for image in images]
    result = Explanation(
        models=[(model.label, list(model.layers)) for model in models],
        images=[image.name for image in images],
        environment=describe_environment(device),
    )
    folder = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    run = _Run(options=options, models=models, config=config, images=images, folder=folder, result=result)
    names = OutputNames()
    for number, image in enumerate(images):
        LOGGER.info(f"image {number + 1}/{len(images)} {image.name}")
        stem = names.claim(Path(image.name).stem, suffix=LONGEST_ENDING)
        run.draw_maps(number, positions[number] if options.target == "detection" else None, stem)
        if number < MAX_DETAILED:
            run.draw_details(number, stem)
    if options.erf:
        run.draw_receptive_fields()
    run.check_sanity()
    write_report(result, options, folder=folder)
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
        return scale_pixels(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None], self.config.device)

    def _show(self, heading: str, path: Path, caption: str) -> None:
        self.result.figures.setdefault(heading, []).append(Image(path, caption))

    def _score(self, key: ScoreKey, image: int, value: float) -> None:
        values = self.result.scores.setdefault(key, np.full(len(self.images), np.nan))
        values[image] = value

    def draw_maps(self, number: int, position_xy: tuple[float, float] | None, stem: str) -> None:
        """Compute, score and draw the class activation maps of one image."""
        image, kind = self.images[number], self.options.target
        pixels = self._pixels(image.preprocessed.image)
        panels, captions = [], []
        for index, model in enumerate(self.models):
            with torch.no_grad():
                predictions = model.network(pixels)[0][0]
            target = choose_target(
                kind,
                predictions,
                objects=image.objects,
                class_id=model.class_id,
                position_xy=position_xy,
                score=self.options.score,
            )
            if target is not None:
                self.targets[index, number] = target
                panels += self._panels(index, number, pixels, target.box(predictions) if kind == "detection" else None)
                words = target.describe(predictions, model.metadata.names, all_classes=kind == "image")
                captions.append(f"{model.label}: {words}")
        if not panels:
            self.result.skipped.append(image.name)
            return
        path = plot_maps(
            image.preprocessed.image,
            panels,
            self.folder / "maps" / f"{stem}.png",
            columns=len(self.models[0].layers),
            title="\n".join([image.name, *captions]),
            truth_xyxy=next(target.truth for (_, of_image), target in self.targets.items() if of_image == number),
        )
        self._show("Class activation maps", path, f"{image.name}: {'; '.join(captions)}")

    def _panels(self, index: int, number: int, pixels: Tensor, box: np.ndarray | None) -> list[MapPanel]:
        """Score the maps of one model and image; return their panels, methods by rows and layers by columns."""
        model, target = self.models[index], self.targets[index, number]
        heats = activation_maps(model.network, pixels, target, layers=model.layers, methods=self.options.method)
        size_hw = (pixels.shape[2], pixels.shape[3])
        mask = box_mask(target.truth, size_hw)
        panels = []
        for method in self.options.method:
            for column, layer in enumerate(model.layers):
                raw = heats[layer, method]
                heat = None if raw is None else normalize(raw, size_hw).numpy()
                title = f"{model.label}  {layer}\n{method}"
                if heat is not None and len(target.truth):
                    inside = energy_inside(heat, mask)
                    title += f"  {inside:.0%} inside"
                    values = (inside, float(points_inside(heat, mask)), float(mask.mean()))
                    for metric, value in zip(("energy_inside", "points_inside", "area_inside"), values, strict=True):
                        self._score((index, column, method, metric), number, value)
                panels.append(MapPanel(title=title, heat=heat, box=box))
        return panels

    def draw_details(self, number: int, stem: str) -> None:
        """Draw feature maps, if asked for, and where AKConv layers in the chosen layers sample at the object."""
        image = self.images[number]
        for index, model in enumerate(self.models):
            if self.options.feature_maps:
                outputs = feature_maps(model.network, self._pixels(image.preprocessed.image), layers=model.layers)
                for name, maps in outputs.items():
                    channels = strongest_channels(maps, MAX_CHANNELS)
                    path = self.folder / "features" / f"{stem}_{model.label}_{name}.png"
                    title = f"{model.label}  {name}: {len(channels)} of {len(maps)} channels, the most variable first"
                    plot_feature_maps(maps[channels].numpy(), [f"channel {c}" for c in channels], path, title=title)
                    self._show(FEATURE_MAPS, path, f"{image.name}, {model.label} {name}")
            layers = {
                name: layer
                for name, layer in akconv_layers(model.network).items()
                if any(f"{name}.".startswith(f"{chosen}.") for chosen in model.layers)
            }
            size_hw, target = (image.image.shape[0], image.image.shape[1]), self.targets.get((index, number))
            truth = image.preprocessed.transform.to_original(target.truth) if target else np.zeros((0, 4))
            locations = box_centers(truth, [""] * len(truth), size_hw)
            if self.options.position:
                locations = locations_inside([(self.options.position[0], self.options.position[1])], size_hw)
            samplings = sample_image(model.network, layers, image.preprocessed, self.config) if layers else {}
            for name, sampling in samplings.items():
                path = self.folder / "sampling" / f"{stem}_{model.label}_{name}.png"
                plot_layer(sampling, image.image, image.preprocessed, locations, path)
                self._show("Sampling points", path, f"{image.name}, {model.label} {name}")

    def draw_receptive_fields(self) -> None:
        """Compute, score and draw the effective receptive fields: one mean over all images for each layer."""
        height, width = self.config.size_hw
        inputs = [letterbox(image.image, self.config.size_hw) for image in self.images]
        at = (0.5, 0.5)
        if self.options.position:
            x, y = inputs[0][1].to_input(np.array([self.options.position * 2], np.float32))[0, :2].tolist()
            at = (x / width, y / height)
        levels, names = [], []
        for index, model in enumerate(self.models):
            LOGGER.info(f"{model.label}: effective receptive fields of {len(model.layers)} layers")
            sums = [np.zeros((height, width)) for _ in model.layers]
            for number, (padded, _) in enumerate(inputs):
                fields = receptive_fields(model.network, self._pixels(padded), layers=model.layers, position=at)
                for column, energy in enumerate(fields.values()):
                    sums[column] += energy
                    shape = field_shape(energy)
                    for fraction, area in zip(FRACTIONS, shape.area_fractions, strict=True):
                        self._score((index, column, ERF, f"area_{100 * fraction:.0f}"), number, area)
                    self._score((index, column, ERF, "anisotropy"), number, shape.anisotropy)
            for column, layer in enumerate(model.layers):
                self.result.fields[index, column] = field_shape(sums[column] / len(inputs))
                levels.append(energy_levels(sums[column]))
                names.append((model.label, layer))
        columns, heading = len(self.models[0].layers), "Effective receptive fields"
        path = plot_receptive_fields(
            levels, names, self.folder / "receptive_fields", columns=columns, fractions=FRACTIONS, position=at
        )
        self._show(heading, path, f"Mean over {len(inputs)} images; also as .svg")
        path = plot_field_energy(levels, names, self.folder / "receptive_field_energy")
        self._show(heading, path, "Energy held by the strongest pixels, over their area; also as .svg")

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
                self.result.similarity[index, model.layers.index(layer), method] = similarity
