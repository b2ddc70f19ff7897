"""Sanity check of saliency maps: with random weights a map must change, else it does not show what was learned.

Source: Adebayo et al. 2018, model parameter randomization test, cascading from the output to the input.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.explain.cam import activation_maps
from utils.explain.scores import rank_correlation
from utils.explain.target import Target

STAGES = ("head", "second half", "all")  # what is random, from the output to the input
CHANGED = 0.5  # mean rank correlation with all weights random, below which a map has changed

Similarity = dict[str, float]  # mean rank correlation with the maps of the trained weights, by stage


def randomized(network: DetectionModel, stage: str, *, seed: int) -> DetectionModel:
    """Return a copy whose last rows have initial weights, as before training: the head, half of the rows, or all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = DetectionModel(network.config, ch=network.in_channels)
    result = copy.deepcopy(network)
    rows = len(result.model)
    for row in range({"head": rows - 1, "second half": rows // 2, "all": 0}[stage], rows):
        result.model[row].load_state_dict(fresh.model[row].state_dict())
    return result


def compare_randomized(
    network: DetectionModel,
    images: Sequence[tuple[Tensor, Target]],
    *,
    layers: Sequence[str],
    methods: Sequence[str],
    seed: int,
) -> dict[tuple[str, str], Similarity]:
    """Return the similarity of each layer's and method's maps, without images where the trained map is 0 everywhere.

    `images` are pixels (1, 3, H, W) and what `activation_maps` explains: the same predictions whatever the weights.
    """
    trained = [activation_maps(network, *image, layers=layers, methods=methods) for image in images]
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for stage in STAGES:
        other = randomized(network, stage, seed=seed)
        for image, before in zip(images, trained, strict=True):
            after = activation_maps(other, *image, layers=layers, methods=methods)
            for key, heat in before.items():
                if heat is not None and heat.any():
                    new = after[key]
                    values[key][stage].append(0.0 if new is None else rank_correlation(heat.numpy(), new.numpy()))
    return {key: {stage: float(np.mean(v)) for stage, v in stages.items()} for key, stages in values.items()}


def changed(similarity: Mapping[str, float]) -> bool:
    """Whether a map has changed once all weights are random."""
    return similarity["all"] < CHANGED
