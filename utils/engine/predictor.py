"""detect.py's work: look at every frame of a source, and write what was asked for."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.fuse import fused
from models.yolo import DetectionModel
from utils.boxes import xyxy_to_cxcywh
from utils.datasets.config import load_data_config
from utils.datasets.images import write_image
from utils.datasets.letterbox import letterbox
from utils.datasets.sources import Frame, Source, open_source
from utils.engine.assemble import round_image_size
from utils.engine.augmented import predict_augmented
from utils.engine.checkpoint import load_model
from utils.engine.options import DetectOptions
from utils.engine.plugins import load_plugins
from utils.engine.postprocess import NmsSettings, non_max_suppression
from utils.engine.runtime import place, scale_pixels, select_device
from utils.errors import ConfigError, DataError, RunError
from utils.files import atomic_write, make_run_dir
from utils.log import LOGGER
from utils.plots.boxes import draw_boxes, printable
from utils.structures import Detections


class Predictor:
    """A model ready to look at pictures.

    Attributes:
        names: class names.
    """

    def __init__(
        self,
        model: DetectionModel,
        names: Sequence[str],
        *,
        device: torch.device,
        size_hw: tuple[int, int],
        nms: NmsSettings,
        half: bool = False,
        augment: bool = False,
    ) -> None:
        """Fold the model's batch norms and move it.

        Args:
            model: in float32; left as it is.
            names: class names.
            device: where to compute.
            size_hw: pictures are fitted into this, multiples of the model's stride.
            nms: thresholds.
            half: half precision.
            augment: look at three sizes, once mirrored.
        """
        self.names = tuple(names)
        self.device = device
        self.size_hw = size_hw
        self.nms = nms
        self.augment = augment
        self.dtype = torch.float16 if half else torch.float32
        self.stride = model.max_stride
        self.network = place(fused(model).to(self.dtype), device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[Detections, dict[str, float]]:
        """Look at one (H, W, 3) uint8 RGB picture.

        Returns:
            What was found, in pixels of the picture, and the milliseconds of each phase.
        """
        times = [time.perf_counter()]
        fitted, placement = letterbox(image, self.size_hw, minimal=True, stride=self.stride)
        batch = scale_pixels(torch.from_numpy(fitted)[None].permute(0, 3, 1, 2), self.device, self.dtype)
        times.append(time.perf_counter())
        if self.augment:
            predictions = predict_augmented(self.network, batch, stride=self.stride)
        else:
            predictions = self.network(batch)[0]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times.append(time.perf_counter())
        found = non_max_suppression(predictions, self.nms)[0]
        boxes = placement.to_original(found.boxes.cpu())
        times.append(time.perf_counter())
        spent = {
            phase: 1000 * (end - start)
            for phase, start, end in zip(("pre", "inference", "nms"), times, times[1:], strict=False)
        }
        return Detections(boxes=boxes, scores=found.scores.cpu(), classes=found.classes.cpu()), spent


@dataclass(kw_only=True)
class _Outputs:
    """Where results go; made as they are needed."""

    options: DetectOptions
    run_dir: Path
    names: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    videos: dict[Path, cv2.VideoWriter] = field(default_factory=dict)
    stems: dict[Path, str] = field(default_factory=dict)

    def stem(self, path: Path) -> str:
        """Return a name for a source's outputs; sources of one name in several folders get a number."""
        if path not in self.stems:
            self.used[path.stem] += 1
            number = self.used[path.stem]
            self.stems[path] = path.stem if number == 1 else f"{path.stem}-{number}"
        return self.stems[path]

    def write(self, frame: Frame, found: Detections) -> None:
        """Write all that was asked for of one frame."""
        options = self.options
        stem = self.stem(frame.path)
        label_stem = f"{stem}_{frame.number}" if frame.is_video else stem
        if options.save_txt:
            self._write_txt(label_stem, frame, found)
        if options.save_csv:
            for box, score, number in zip(
                found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
            ):
                corners = [round(v, 1) for v in box]
                self.rows.append((frame.path.name, self.names[number], f"{score:.2f}", number, *corners))
        if options.save_crop:
            self._write_crops(label_stem, frame, found)
        if options.nosave and not options.view_img:
            return
        drawn = draw_boxes(
            frame.image,
            found.boxes.numpy(),
            self._labels(found),
            found.classes.tolist(),
            thickness=options.line_thickness,
        )
        if options.view_img:
            _show(frame.path.name, drawn)
        if options.nosave:
            return
        if frame.is_video:
            self._video(frame, stem).write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        else:
            suffix = (
                frame.path.suffix if frame.path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp") else ".jpg"
            )
            write_image(self.run_dir / f"{stem}{suffix}", drawn)

    def _labels(self, found: Detections) -> list[str]:
        if self.options.hide_labels:
            return [""] * len(found)
        labels = [printable(self.names[number], number) for number in found.classes.tolist()]
        if self.options.hide_conf:
            return labels
        return [f"{label} {score:.2f}" for label, score in zip(labels, found.scores.tolist(), strict=True)]

    def _write_txt(self, stem: str, frame: Frame, found: Detections) -> None:
        height, width = frame.image.shape[:2]
        boxes = found.boxes if self.options.save_format else xyxy_to_cxcywh(found.boxes)
        shares = boxes / boxes.new_tensor((width, height, width, height))
        lines = []
        for box, score, number in zip(shares.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True):
            values = [*box, score] if self.options.save_conf else box
            lines.append(" ".join([str(number), *(f"{value:.6g}" for value in values)]) + "\n")
        atomic_write(self.run_dir / "labels" / f"{stem}.txt", "".join(lines))

    def _write_crops(self, stem: str, frame: Frame, found: Detections) -> None:
        for position, (box, number) in enumerate(zip(found.boxes.tolist(), found.classes.tolist(), strict=True)):
            x1, y1, x2, y2 = (round(v) for v in box)
            crop = frame.image[y1:y2, x1:x2]
            if crop.size:
                folder = self.names[number].replace("/", "_").replace("\\", "_").strip(". ") or str(number)
                suffix = "" if position == 0 else str(position + 1)
                write_image(self.run_dir / "crops" / folder / f"{stem}{suffix}.jpg", crop)

    def _video(self, frame: Frame, stem: str) -> cv2.VideoWriter:
        """Return the writer of a video's annotated copy."""
        if frame.path not in self.videos:
            height, width = frame.image.shape[:2]
            path = self.run_dir / f"{stem}.mp4"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, (width, height))
            if not writer.isOpened():
                raise RunError(path, "cannot be written as a video", fix="use --nosave, or check the disk")
            self.videos[frame.path] = writer
        return self.videos[frame.path]

    def close(self) -> None:
        """Finish videos and the table."""
        for writer in self.videos.values():
            writer.release()
        if self.options.save_csv:
            buffer = io.StringIO()
            header = ("Image Name", "Prediction", "Confidence", "Class", "xmin", "ymin", "xmax", "ymax")
            csv.writer(buffer, lineterminator="\n").writerows([header, *self.rows])
            atomic_write(self.run_dir / "predictions.csv", buffer.getvalue())


def run_detection(options: DetectOptions) -> Path:
    """Look at a source as the options say.

    Returns:
        The run's folder.

    Raises:
        DetectorError: something in the input is wrong, or no file of the source could be read.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    source = open_source(options.source, vid_stride=options.vid_stride)
    model, names = load_model(options.weights)
    if options.data:
        names = load_data_config(options.data).names
    if len(names) != model.num_classes:
        raise ConfigError(
            options.data, f"has {len(names)} names, the model {model.num_classes}", fix="leave --data out"
        )
    if any(not 0 <= number < len(names) for number in options.classes):
        raise ConfigError("--classes", f"must be from 0 to {len(names) - 1} (got {options.classes})", fix="correct it")
    sides = options.imgsz if len(options.imgsz) == 2 else options.imgsz * 2
    if options.half and device.type != "cuda":
        LOGGER.warning("--half needs CUDA; full precision is used")
    predictor = Predictor(
        model,
        names,
        device=device,
        size_hw=(round_image_size(sides[0], model.max_stride), round_image_size(sides[1], model.max_stride)),
        nms=NmsSettings(
            confidence=options.conf_thres,
            overlap=options.iou_thres,
            max_detections=options.max_det,
            classes=options.classes or None,
            agnostic=options.agnostic_nms,
        ),
        half=options.half and device.type == "cuda",
        augment=options.augment,
    )
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    return _look(predictor, source, options, run_dir)


def _look(predictor: Predictor, source: Source, options: DetectOptions, run_dir: Path) -> Path:
    """Go through the frames; say what was found in each, and at the end what it took."""
    outputs = _Outputs(options=options, run_dir=run_dir, names=predictor.names)
    totals: Counter[str] = Counter()
    seen = 0
    try:
        for frame in source:
            found, spent = predictor(frame.image)
            seen += 1
            totals.update(spent)
            LOGGER.info(_line(frame, found, predictor.names, spent["inference"], seen, len(source.files)))
            outputs.write(frame, found)
    finally:
        outputs.close()
    if not seen:
        path, reason = source.skipped[0]
        raise DataError(path, reason, fix="no file of the source could be read")
    if source.skipped:
        LOGGER.warning(f"{len(source.skipped)} of {len(source.files)} files skipped")
    LOGGER.info(
        f"Speed: {totals['pre'] / seen:.1f} ms preparing, {totals['inference'] / seen:.1f} ms inference, "
        f"{totals['nms'] / seen:.1f} ms NMS per image\nResults: {run_dir}"
    )
    return run_dir


def _line(frame: Frame, found: Detections, names: Sequence[str], milliseconds: float, seen: int, files: int) -> str:
    """Say what was found in a frame: `image 3/40 a.jpg: 480x640 2 cats, 1 dog, 31.2 ms`."""
    counts = Counter(found.classes.tolist())
    listed = ", ".join(f"{count} {names[n]}{'s' * (count > 1)}" for n, count in sorted(counts.items()))
    height, width = frame.image.shape[:2]
    where = f"frame {frame.number}/{frame.total or '?'}" if frame.is_video else f"image {seen}/{files}"
    return f"{where} {frame.path}: {height}x{width} {listed or '(no detections)'}, {milliseconds:.1f} ms"


def _show(title: str, image: np.ndarray) -> None:
    """Show a picture in a window.

    Raises:
        ConfigError: there is no screen, or this OpenCV has no windows.
    """
    try:
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)
    except cv2.error as error:
        raise ConfigError("--view-img", "no window can be opened here", fix="leave it out") from error
