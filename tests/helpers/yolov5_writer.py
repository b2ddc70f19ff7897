"""Writes a file as YOLOv5 does: the pickled model object, of classes in modules that this project does not have.

Runs in a process without this project on its path: `python yolov5_writer.py jobs.json`, a list of settings with
`plain`, a file of a state dict and its model yaml, and `target`. The classes are created here, by name only, around
layers of torch.
"""

import argparse
import collections
import json
import pathlib
import sys
import types
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BLOCKS = ("Conv", "C3", "Bottleneck", "BottleneckCSP", "SPPF", "SPP", "Focus", "Concat", "AKConv", "LDConv", "Block")
NETWORKS = ("Model", "DetectionModel", "SegmentationModel", "Detect", "Segment")


def fake_modules() -> dict[str, type[nn.Module]]:
    """Create `models.common` and `models.yolo` with empty classes, whose names torch.save writes to the file."""
    classes = {}
    for module_name, names in (("models.common", BLOCKS), ("models.yolo", NETWORKS)):
        module = types.ModuleType(module_name)
        sys.modules.setdefault("models", types.ModuleType("models"))
        sys.modules[module_name] = module
        for name in names:
            classes[name] = type(name, (nn.Module,), {"__module__": module_name})
            setattr(module, name, classes[name])
    for owner, function, wrapper in (("LDConv", set_lr, staticmethod), ("Conv", forward_fuse, lambda f: f)):
        function.__module__, function.__qualname__ = "models.common", f"{owner}.{function.__name__}"
        setattr(classes[owner], function.__name__, wrapper(function))
    return classes


def set_lr(module, grad_input, grad_output):
    """Stand for the hook by which the published AKConv slows down its offsets."""


def forward_fuse(self, x):
    """Stand for the method that takes the place of `forward` in a fused convolution."""
    return self.act(self.conv(x))


class Writer:
    """Builds a tree of modules from the names in a state dict."""

    def __init__(self, state: dict[str, torch.Tensor], settings: dict) -> None:
        self.state, self.settings, self.classes = state, settings, fake_modules()

    def children(self, prefix: str) -> list[str]:
        inside = [key[len(prefix) :].split(".")[0] for key in self.state if key.startswith(prefix)]
        return list(dict.fromkeys(inside))

    def leaf(self, prefix: str) -> nn.Module:
        tensors = {key[len(prefix) :]: tensor for key, tensor in self.state.items() if key.startswith(prefix)}
        weight = tensors["weight"]
        if "running_mean" in tensors:
            layer = nn.BatchNorm2d(len(weight), eps=self.settings.get("eps", 1e-3), momentum=0.03)
        else:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias="bias" in tensors)
        layer.load_state_dict(tensors)
        return layer

    def build(self, prefix: str) -> nn.Module:
        names = self.children(prefix)
        if "weight" in names:
            return self.leaf(prefix)
        if all(name.isdigit() for name in names):
            return nn.Sequential(*(self.build(f"{prefix}{name}.") for name in names))
        kind = "Block"
        if "bn" in names and "conv" in names:
            kind = "Conv"
        elif "p_conv" in names:
            kind = "LDConv"
        elif "cv4" in names:
            kind = "BottleneckCSP"
        elif "cv3" in names:
            kind = "C3"
        elif "cv1" in names:
            kind = "Bottleneck"
        module = self.classes[kind]()
        for name in names:
            setattr(module, name, self.build(f"{prefix}{name}."))
        if kind == "Conv":
            module.act = getattr(nn, self.settings.get("activation", "SiLU"))()
            if self.settings.get("fused"):
                module.conv = fuse_conv_bn_eval(module.conv.eval(), module.bn.eval())
                del module.bn
                module.forward = module.forward_fuse
        elif kind == "BottleneckCSP":
            module.act = nn.LeakyReLU(0.1)
        elif kind == "LDConv":
            module.conv.append(nn.SiLU())
            points = module.p_conv.out_channels // 2
            root = round(points**0.5)
            rows, columns = torch.arange(points) // root, torch.arange(points) % root
            module.register_buffer("p_n", torch.cat((rows, columns)).view(1, -1, 1, 1))
            module.p_conv.register_full_backward_hook(module.set_lr)
        return module

    def detect(self, prefix: str, nc: int) -> nn.Module:
        settings = self.settings
        module = self.classes[settings.get("head", "Detect")]()
        anchors = self.state[f"{prefix}anchors"]
        module.nc, module.no, module.nl, module.na = nc, nc + 5, len(anchors), anchors.shape[1]
        module.grid = [torch.empty(0) for _ in range(module.nl)]
        module.register_buffer("anchors", anchors.clone())
        if settings.get("old"):  # releases of 2020 and 2021 kept the anchors in pixels too
            stride = torch.tensor(settings["strides"]).view(-1, 1, 1)
            module.register_buffer("anchor_grid", (anchors * stride).view(module.nl, 1, -1, 1, 1, 2))
        else:
            module.anchor_grid = [torch.empty(0) for _ in range(module.nl)]
        if settings.get("expanded"):  # after an image
            stride = torch.tensor(settings["strides"]).view(-1, 1, 1)
            grids = (anchors * stride).clone().view(module.nl, 1, -1, 1, 1, 2)
            module.anchor_grid = [grid.expand(1, -1, 20 // 2**i, 30 // 2**i, 2) for i, grid in enumerate(grids)]
        module.m = nn.ModuleList(self.leaf(f"{prefix}m.{level}.") for level in range(module.nl))
        module.inplace, module.stride = True, torch.tensor(settings["strides"], dtype=torch.float32)
        return module

    def network(self, yaml: dict) -> nn.Module:
        network = self.classes[self.settings.get("network", "DetectionModel")]()
        rows = yaml["backbone"] + yaml["head"]
        layers = []
        for index, (source, _, kind, _) in enumerate(rows):
            prefix = f"model.{index}."
            if index == len(rows) - 1:
                layer = self.detect(prefix, yaml["nc"])
            elif self.children(prefix):
                layer = self.build(prefix)
            else:
                layer = nn.Upsample(None, 2, "nearest") if kind == "nn.Upsample" else self.classes["Concat"]()
            layer.i, layer.f, layer.type, layer.np = index, source, f"models.common.{kind}", 1
            layers.append(layer)
        network.yaml, network.yaml_file = {**yaml, "ch": 3}, self.settings.get("yaml_file", "yolov5n.yaml")
        network.model, network.save = nn.Sequential(*layers), [4, 6, 10, 14, 17, 20, 23]
        network.names, network.inplace = self.names(yaml["nc"]), True
        network.stride = torch.tensor(self.settings["strides"], dtype=torch.float32)
        network.nc, network.hyp = yaml["nc"], {"lr0": 0.01, "anchor_t": np.float64(4.0)}
        network.class_weights = torch.ones(yaml["nc"])
        return network

    def names(self, nc: int) -> object:
        names = self.settings.get("names") or [f"class {class_id}" for class_id in range(nc)]
        return dict(enumerate(names)) if self.settings.get("names_as") == "dict" else names


def write(plain: dict, target: str, settings: dict) -> None:
    """Write one checkpoint."""
    writer = Writer(plain["state"], settings)
    network = writer.network(plain["yaml"])
    if settings.get("half", True):
        network = network.half()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    options = argparse.Namespace(imgsz=640, save_dir=pathlib.PurePosixPath("runs/train/exp"), device="")
    saved = {
        "epoch": -1,
        "best_fitness": np.array([0.5]),
        "model": network,
        "ema": None,
        "updates": None,
        "optimizer": optimizer.state_dict() if settings.get("optimizer") else None,
        "opt": options if settings.get("old") else vars(options),
        "wandb_id": None,
        "git": {"remote": None, "branch": "master", "commit": None},
        "date": "2022-11-22T10:00:00.000000",
        "training_results": collections.defaultdict(list, {"a": [np.float64(1.0)]}),
    }
    if settings.get("in_ema"):
        saved["ema"], saved["model"] = network, writer.network(plain["yaml"]).apply(zeroed)
    if settings.get("wrapped"):
        saved["model"], saved["ema"] = nn.DataParallel(network), None
    if settings.get("ema_with_updates"):
        saved["model"], saved["ema"] = None, (network, 17)
    content = network if settings.get("bare") else saved
    torch.save(content, target, _use_new_zipfile_serialization=not settings.get("legacy"))


def zeroed(module: nn.Module) -> None:
    """Zero a module, to detect if it is used."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the older format warns that these classes have no source
    for job in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")):
        write(torch.load(job["plain"], weights_only=True), job["target"], job)
