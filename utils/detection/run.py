"""detect.py's work: look at every frame of a source, and write what was asked for."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.fuse import fused
from models.yolo import DetectionModel
from utils.datasets.config import load_data_config
from utils.datasets.sources import Frame, Source, open_source
from utils.datasets.splits import round_image_size
from utils.datasets.streams import ReconnectPolicy
from utils.detection.sampling_plots import MAX_IMAGES, SamplingImages
from utils.detection.side_by_side_plot import side_by_side
from utils.detection.writers import Outputs, require_screen
from utils.errors import ConfigError, RunError
from utils.files import make_run_dir, write_skipped
from utils.inference.model_loading import Network, open_network
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, PreprocessedImage, Timings, fit, look
from utils.log import LOGGER
from utils.options import DetectOptions
from utils.plugins import load_plugins
from utils.runtime import select_device, to_device
from utils.structures import Detections


class Predictor:
    """A model ready to look at images.

    Attributes:
        names: class names.
        network: the model with its batch norms folded, on the device.
        how: see `InferenceConfig`.
    """

    def __init__(
        self,
        model: Network,
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
            size_hw: images are fitted into this, multiples of the model's stride.
            nms: thresholds.
            half: half precision.
            augment: look at three sizes, once mirrored.
        """
        self.names = tuple(names)
        dtype = torch.float16 if half else torch.float32
        self.how = InferenceConfig(
            size_hw=size_hw, stride=model.max_stride, nms=nms, device=device, dtype=dtype, augment=augment
        )
        self.network = to_device(fused(model).to(dtype), device)

    def fit(self, image: np.ndarray) -> PreprocessedImage:
        """Fit an (H, W, 3) uint8 RGB image; may be called from any thread."""
        return fit(image, self.how)

    def look(self, images: Sequence[PreprocessedImage]) -> list[tuple[Detections, Timings]]:
        """Look at fitted images; see `look`."""
        return look(self.network, images, self.how)

    def __call__(self, image: np.ndarray) -> tuple[Detections, Timings]:
        """Look at one (H, W, 3) uint8 RGB image.

        Returns:
            What was found, in pixels of the image, and the milliseconds of each phase.
        """
        return self.look([self.fit(image)])[0]


def run_detection(options: DetectOptions) -> Path:
    """Look at a source as the options say.

    Returns:
        The run's folder.

    Raises:
        DetectorError: something in the input is wrong, or no file of the source could be read.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    if options.view_img:
        require_screen()
    reconnect = ReconnectPolicy(give_up_after=options.stream_timeout)
    source = open_source(options.source, vid_stride=options.vid_stride, reconnect=reconnect)
    opened = open_network(options.weights, device, trust=options.trust_torchscript)
    model, names = opened.network, opened.description.names
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
            conf_threshold=options.conf_thres,
            iou_threshold=options.iou_thres,
            max_detections=options.max_det,
            classes=options.classes or None,
            agnostic=options.agnostic_nms,
        ),
        half=options.half and device.type == "cuda",
        augment=options.augment,
    )
    sampling = SamplingImages(
        predictor.network,
        predictor.how,
        wanted=options.visualize_layers,
        chosen_xy=options.visualize_at,
        most=MAX_IMAGES if options.draws_sampling else 0,
    )
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    return _look(predictor, source, options, run_dir, sampling)


def _look(
    predictor: Predictor, source: Source, options: DetectOptions, run_dir: Path, sampling: SamplingImages
) -> Path:
    """Go through the frames; say what was found in each, and at the end what it took.

    Raises:
        RunError: no file of the source could be read, or all streams were given up.
    """
    totals: Counter[str] = Counter()
    seen = 0
    workers = _workers(predictor, source, options)
    progress = _Progress(len(source.files), endless=bool(source.streams))
    batches = source.batches(options.batch_size, lambda frame: (frame, predictor.fit(frame.image)))
    try:
        with (
            contextlib.closing(batches),
            progress,
            sampling,
            Outputs(options=options, run_dir=run_dir, names=predictor.names) as outputs,
        ):
            begun = time.perf_counter()
            looked = side_by_side(lambda some: predictor.look([one for _, one in some]), batches, workers=workers)
            for batch, results in looked:
                for (frame, fitted), (found, spent) in zip(batch, results, strict=True):
                    seen += 1
                    totals.update(spent)
                    number = progress.step(frame, options.vid_stride)
                    line = _line(frame, found, predictor.names, spent["inference"], number, len(source.files))
                    progress.say(line)
                    outputs.write(frame, found)
                    sampling.add(frame.image, fitted, found, predictor.names, run_dir / outputs.stem(frame.path))
    finally:
        write_skipped(run_dir, source.skipped)
    if not seen:
        path, reason = source.skipped[0]
        raise RunError(path, reason, fix=f"none of the {len(source.skipped)} files of the source could be read")
    if source.skipped:
        listed = f"list in {run_dir / 'skipped.csv'}"
        LOGGER.warning(f"{len(source.skipped)} of {len(source.files)} files skipped; {listed}")
    rate = seen / (time.perf_counter() - begun)
    at_once = f", {workers} batches at once" if workers > 1 else ""
    LOGGER.info(
        f"Speed: {totals['pre'] / seen:.1f} ms preparing, {totals['inference'] / seen:.1f} ms inference, "
        f"{totals['nms'] / seen:.1f} ms NMS per image{at_once}; "
        f"{rate:.1f} images a second\nResults: {run_dir}"
    )
    return run_dir


def _workers(predictor: Predictor, source: Source, options: DetectOptions) -> int:
    """Return how many batches to look at side by side: several of files on the CPU, one of all else.

    Streams want their answer at once, runtimes of exported files have threads of their own, and `--visualize` looks
    into the network while nobody else may use it.
    """
    ours = isinstance(predictor.network, DetectionModel) and predictor.how.device.type == "cpu"
    if not ours or options.draws_sampling or source.streams or len(source.files) <= options.batch_size:
        return 1
    return torch.get_num_threads()


class _Progress:
    """A bar with the time left below the lines, where stderr is a terminal."""

    def __init__(self, files: int, *, endless: bool) -> None:
        self._bar = tqdm(total=None if endless else files, unit="image", disable=None, leave=False, dynamic_ncols=True)
        self._number = 0
        self._video: Path | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, frame: Frame, stride: int) -> int:
        """Count a frame; return the number of its file among those that could be read, from 1.

        A video counts as one file until its first frame tells how many it has.
        """
        new = not frame.is_video or frame.path != self._video
        self._video = frame.path if frame.is_video else None
        self._number += new
        if new and frame.total and self._bar.total is not None:
            self._bar.total += math.ceil(frame.total / stride) - 1
        self._bar.update()
        return self._number

    def say(self, line: str) -> None:
        """Log a line above the bar."""
        if self._bar.disable:
            LOGGER.info(line)
            return
        with tqdm.external_write_mode(file=sys.stdout):
            LOGGER.info(line)


def _line(frame: Frame, found: Detections, names: Sequence[str], milliseconds: float, number: int, files: int) -> str:
    """Say what was found in a frame: `image 3/40 a.jpg: 480x640 2 cats, 1 dog, 31.2 ms`."""
    counts = Counter(found.classes.tolist())
    listed = ", ".join(f"{count} {names[n]}{'s' * (count > 1)}" for n, count in sorted(counts.items()))
    height, width = frame.image.shape[:2]
    where = f"frame {frame.index}/{frame.total or '?'}" if frame.is_video else f"image {number}/{files}"
    shown = os.fsencode(frame.path).decode("utf-8", "backslashreplace")  # a name may be no text
    return f"{where} {shown}: {height}x{width} {listed or '(no detections)'}, {milliseconds:.1f} ms"
