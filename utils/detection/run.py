"""Run detect.py: predict every frame of a source and write the outputs that the options ask for."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tqdm import tqdm

from utils.datasets.config import load_data_config
from utils.datasets.letterbox import round_image_size
from utils.datasets.sources import Frame, Source, open_source
from utils.datasets.streams import ReconnectPolicy
from utils.detection.parallel import parallel_map
from utils.detection.writers import DetectionWriter, displayed, require_display
from utils.errors import ConfigError, RunError
from utils.files import make_run_dir, write_skipped
from utils.inference.annotations import summarize
from utils.inference.engine import open_onnx_network
from utils.inference.metadata import ModelMetadata, require_fixed_size
from utils.inference.network import Network
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, predict, preprocess
from utils.log import LOGGER
from utils.options import DetectOptions
from utils.plugins import load_plugins
from utils.threads import thread_count

if TYPE_CHECKING:
    from utils.detection.sampling_plots import SamplingPlots


@dataclass(frozen=True, kw_only=True)
class _Model:
    """The opened weights, and what belongs to them in a run."""

    network: Network
    metadata: ModelMetadata
    workers: int  # batches that it runs at once, each in one thread, if there are several
    sampling: SamplingPlots | None = None  # of `--visualize`


def run_detection(options: DetectOptions) -> Path:
    """Detect objects in a source and return the run's folder.

    Raises:
        DetectorError: an input is invalid, or no file of the source could be read.
    """
    load_plugins(options.plugins)
    if options.view_img:
        require_display()
    reconnect = ReconnectPolicy(give_up_after=options.stream_timeout)
    source = open_source(options.source, vid_stride=options.vid_stride, reconnect=reconnect)
    # Batches of files run in parallel on the CPU. Streams need low latency, and `--visualize` hooks into the network,
    # which no other thread may use at the same time.
    several = not (options.draws_sampling or source.streams) and len(source.files) > options.batch_size
    model = _open_model(options, several=several)
    network, metadata = model.network, model.metadata
    names = load_data_config(options.data).names if options.data else metadata.names
    if len(names) != network.num_classes:
        what = f"has {len(names)} names, but the model has {network.num_classes} classes"
        raise ConfigError(options.data, what, fix="leave --data out")
    if any(not 0 <= class_id < len(names) for class_id in options.classes):
        what = f"must be from 0 to {len(names) - 1} (got {options.classes})"
        raise ConfigError("--classes", what, fix="pass class ids of this model")
    if metadata.fixed_hw:
        require_fixed_size(metadata.fixed_hw, options.imgsz, options.weights[0])
    elif not options.imgsz:
        LOGGER.info(f"Image size: {metadata.image_size} px, as the model was trained; --imgsz changes it")
    imgsz = metadata.fixed_hw or options.imgsz or (metadata.image_size,)
    height, width = (round_image_size(side, network.max_stride) for side in (imgsz * 2)[:2])
    config = InferenceConfig(
        size_hw=(height, width),
        stride=None if metadata.fixed_hw else network.max_stride,
        nms=NmsSettings(
            conf_threshold=options.conf_thres,
            iou_threshold=options.iou_thres,
            max_detections=options.max_det,
            classes=options.classes or None,
            agnostic=options.agnostic_nms,
        ),
    )
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    writer = DetectionWriter(options, run_dir, names)
    try:
        _detect(model, config, source, options, writer)
    finally:
        write_skipped(run_dir, source.skipped)
    if source.skipped:
        listed = f"list in {run_dir / 'skipped.csv'}"
        LOGGER.warning(f"{len(source.skipped)} of {len(source.files)} files skipped; {listed}")
    LOGGER.info(f"Results: {run_dir}")
    return run_dir


def _open_model(options: DetectOptions, *, several: bool) -> _Model:
    """Open the weights in the engine that suits the run, which has several batches or one."""
    workers = thread_count() if several else 1
    flags = {"--visualize": options.draws_sampling, "--augment": options.augment, "--half": options.half}
    opened = open_onnx_network(
        options.weights,
        engine=options.engine,
        device=options.device,
        torch_only=next((flag for flag, given in flags.items() if given), ""),
        threads=1 if workers > 1 else None,
    )
    if opened is not None:
        return _Model(network=opened[0], metadata=opened[1], workers=workers)
    from torch import nn

    from models.yolo import DetectionModel  # only now: ONNX Runtime needs no torch
    from utils.detection.sampling_plots import MAX_IMAGES, SamplingPlots
    from utils.inference.model_loading import open_torch_network
    from utils.inference.tta import augmented
    from utils.runtime import select_device

    device = select_device(options.device)
    half = options.half and device.type == "cuda"
    if options.half and not half:
        LOGGER.warning("--half requires CUDA; using full precision")
    network, metadata = open_torch_network(options.weights, device, trust=options.trust_torchscript, half=half)
    sampling = None
    if options.draws_sampling:
        layers, locations_xy = options.visualize_layers, options.visualize_at
        sampling = SamplingPlots(
            cast(nn.Module, network.detector), layers=layers, locations_xy=locations_xy, max_images=MAX_IMAGES
        )
    # Runtimes of exported files have their own threads.
    in_parallel = isinstance(network.detector, DetectionModel) and device.type == "cpu"
    if options.augment:
        network = replace(network, detector=augmented(network.detector))
    return _Model(network=network, metadata=metadata, workers=workers if in_parallel else 1, sampling=sampling)


def _detect(
    model: _Model,
    config: InferenceConfig,
    source: Source,
    options: DetectOptions,
    writer: DetectionWriter,
) -> None:
    """Process all frames: log a line for each, and the mean timings at the end; RunError if there are none."""
    totals: Counter[str] = Counter()
    frames, limited = 0, False
    workers, sampling = model.workers, model.sampling
    progress = _Progress(len(source.files), endless=bool(source.streams))
    batches = source.batches(options.batch_size, lambda frame: (frame, preprocess(frame.image, config)))
    plots = sampling or contextlib.nullcontext()
    with contextlib.closing(batches), contextlib.closing(progress.bar), plots, writer:
        start = time.perf_counter()
        predicted = parallel_map(
            lambda batch: predict(model.network, [image for _, image in batch], config), batches, workers=workers
        )
        for batch, results in predicted:
            for (frame, preprocessed), (detections, timings) in zip(batch, results, strict=True):
                frames += 1
                totals.update(timings)
                height, width = frame.image.shape[:2]
                position = progress.step(frame, options.vid_stride)
                summary = f"{height}x{width} {summarize(detections, writer.names)}, {timings['inference']:.1f} ms"
                LOGGER.info(f"{position} {displayed(frame.path)}: {summary}")
                if len(detections) == options.max_det and not limited:
                    limited = True
                    limit = f"reached the limit of --max-det {options.max_det} detections (shown once)"
                    LOGGER.warning(f"{displayed(frame.path)}: {limit}")
                writer.write(frame, detections)
                if sampling is not None:
                    path = writer.run_dir / writer.stem(frame.path, frame.number)
                    sampling.add(frame.image, preprocessed, detections, writer.names, path)
    if not frames:
        first, reason = source.skipped[0]
        others = f": none of its {len(source.skipped)} files could be read" if len(source.skipped) > 1 else ""
        raise RunError(first, reason, fix=f"check the source{others}")
    seconds = time.perf_counter() - start
    per_image = {phase: totals[phase] / frames for phase in ("pre", "inference", "nms")}
    parallel = f" ({workers} batches in parallel, one thread each)" if workers > 1 else ""
    LOGGER.info(
        f"Speed: {per_image['pre']:.1f} ms pre-process, {per_image['inference']:.1f} ms inference, "
        f"{per_image['nms']:.1f} ms NMS per image{parallel}, {1000 / max(sum(per_image.values()), 1e-6):.1f} FPS; "
        f"{frames} images in {seconds:.1f} s with reading, drawing and writing"
    )


class _Progress:
    """A progress bar below the log lines if stderr is a terminal, and the position of each frame."""

    def __init__(self, files: int, *, endless: bool) -> None:
        total = None if endless else files
        self.bar = tqdm(total=total, unit="image", disable=None, leave=False, dynamic_ncols=True)
        self._files = files
        self._number = 0
        self._video: tuple[Path, int] | None = None

    def step(self, frame: Frame, stride: int) -> str:
        """Count a frame; return its position, as `image 3/40` or `frame 12/300`.

        A video counts as one file until its first frame reveals its length.
        """
        new_file = not frame.is_video or (frame.path, frame.number) != self._video
        self._video = (frame.path, frame.number) if frame.is_video else None
        self._number += new_file
        if new_file and frame.total and self.bar.total is not None:
            self.bar.total += math.ceil(frame.total / stride) - 1
        self.bar.update()
        if frame.is_video:
            return f"frame {frame.index}/{frame.total or '?'}"
        return f"image {self._number}/{self._files}"
