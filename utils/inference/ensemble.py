"""Several models as one: each looks at the images, and suppression chooses among what all of them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.errors import CheckpointError
from utils.inference.exported_model import ExportedNetwork, ModelMetadata
from utils.inference.model_loading import Network, open_network
from utils.inference.tta import TtaModel


class Ensemble(nn.Module):
    """Models of the same classes, whose predictions are put one after the other.

    Attributes:
        num_classes: how many classes each tells apart.
        max_stride: image sides must be multiples of it.
    """

    def __init__(self, models: Sequence[Network]) -> None:
        """Take models in evaluation mode; their strides and sizes may differ."""
        super().__init__()
        self.models = nn.ModuleList(models)
        self.num_classes = models[0].num_classes
        self.max_stride = max(model.max_stride for model in models)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, n1 + n2 + ..., 5 + classes) predictions in pixels; there are no raw maps."""
        return torch.cat([model(images)[0] for model in self.models], 1), []


class SingleClassWrapper(nn.Module):
    """A model whose classes count as one: a box is as sure as its best class.

    Attributes:
        num_classes: 1.
        max_stride: the model's.
    """

    def __init__(self, model: nn.Module, *, max_stride: int) -> None:
        """Wrap a model in evaluation mode."""
        super().__init__()
        self.model = model
        self.num_classes = 1
        self.max_stride = max_stride

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, n, 6) predictions in pixels."""
        predictions = self.model(images)[0]
        return torch.cat((predictions[..., :5], predictions[..., 5:].amax(-1, keepdim=True)), -1), []


Detector = DetectionModel | ExportedNetwork | Ensemble | SingleClassWrapper | TtaModel


@dataclass(frozen=True, kw_only=True)
class LoadedModels:
    """What val.py judges.

    Attributes:
        model: one model, or several as one.
        names: class names.
        data: data yaml that the first was trained on, "" if it does not say.
        image_size: the largest side that one was trained with.
        single_class: whether they were trained with all classes as one.
    """

    model: Network | Ensemble
    names: tuple[str, ...]
    data: str
    image_size: int
    single_class: bool


def load_models(paths: Sequence[str], *, device: torch.device | None = None, trust: bool = False) -> LoadedModels:
    """Read one or several checkpoints or exported files; `device` and `trust` as in `open_network`.

    Raises:
        CheckpointError: one cannot be used, or they do not tell the same classes.
    """
    models: list[Network] = []
    descriptions: list[ModelMetadata] = []
    names: tuple[str, ...] = ()
    for path in paths:
        opened = open_network(path, device or torch.device("cpu"), trust=trust)
        own = opened.description.names
        if models and own != names:
            raise CheckpointError(path, f"tells {_differences(own, names)}", fix="combine models of one data set")
        names = own
        models.append(opened.network)
        descriptions.append(opened.description)
    return LoadedModels(
        model=models[0] if len(models) == 1 else Ensemble(models),
        names=names,
        data=descriptions[0].data,
        image_size=max(description.image_size for description in descriptions),
        single_class=any(description.single_class for description in descriptions),
    )


def _differences(own: Sequence[str], others: Sequence[str]) -> str:
    """Say how class names differ from those of the models before."""
    if len(own) != len(others):
        return f"{len(own)} classes, the models before it {len(others)}"
    number = next(i for i, pair in enumerate(zip(own, others, strict=True)) if pair[0] != pair[1])
    return f"class {number} {own[number]!r}, the models before it {others[number]!r}"
