"""Entry points of torch.hub: `torch.hub.load("path/to/this/repository", "custom", path="best.pt", source="local")`.

The function behind `custom` is `utils.inference.autoshape.load_detector`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from utils.cli import run_script

    def _main() -> None:
        """Build the entry point that `--model` names, and detect objects in the images of data/images."""
        import importlib

        from utils.errors import ConfigError, did_you_mean
        from utils.files import SAMPLE_IMAGES
        from utils.options import HubOptions
        from utils.options.command_line import read_options

        options, _ = read_options(HubOptions, description=__doc__)
        module = importlib.import_module("hubconf")
        entries = [name for name, entry in vars(module).items() if isinstance(entry, module._Entry)]
        if options.model not in entries:
            fix = did_you_mean(options.model, entries) or f"choose among {', '.join(entries)}"
            raise ConfigError("--model", f"{options.model} does not exist", fix=fix)
        model = getattr(module, options.model)(weights=options.weights, device=options.device)
        model(sorted(map(str, SAMPLE_IMAGES.glob("*.jpg")))).print()

    run_script(_main)

from utils.errors import ConfigError as _ConfigError
from utils.inference import autoshape as _autoshape
from utils.log import LOGGER as _LOGGER
from utils.weights_file import RELEASE as _RELEASE

dependencies = ["torch", "torchvision", "numpy", "cv2", "PIL", "pandas", "matplotlib", "yaml", "einops"]
_Model = _autoshape.AutoShape | _autoshape.Model


def custom(
    path: str,
    autoshape: bool = True,
    _verbose: bool = True,
    device: object = None,
    allow_urls: bool = False,
    trust: bool = False,
    verbose: bool = True,
    engine: str = "auto",
) -> _Model:
    """Load a trained model.

    Args:
        path: a checkpoint, whose `.pt` may be left out, or its export: an .onnx, .torchscript, OpenVINO folder or .xml.
        autoshape: return a detector to call with images; otherwise the bare model.
        _verbose: accepted for compatibility; nothing is printed.
        device: "cpu", "mps", "cuda:0", 0, a torch device, or None for the best available.
        allow_urls: download images given by their web address.
        trust: run a TorchScript file, which is a program, even if it was not exported on this machine.
        verbose: the former name of `_verbose`.
        engine: what runs a checkpoint on a CPU: torch, onnxruntime, or auto; see `load_detector`.

    Raises:
        DetectorError: the file cannot be read, a required package is missing, or the device is not available.
    """
    return _autoshape.load_detector(
        path, device=_name(device), autoshape=autoshape, allow_urls=allow_urls, trust=trust, engine=engine
    )


def create(
    cfg: str,
    weights: str = "",
    channels: int = 3,
    classes: int | None = None,
    autoshape: bool = True,
    device: object = None,
) -> _Model:
    """Build a model from any yaml, such as `yolov5s-AKConv-neck.yaml`.

    Args:
        cfg: name or path of a model yaml.
        weights: a checkpoint whose matching weights are loaded; by default random weights, with a warning.
        channels: input channels; other than 3 only without `autoshape`.
        classes: number of classes; by default the checkpoint's, else the yaml's.
        autoshape: return a detector to call with images; otherwise the bare model.
        device: see `custom`.

    Raises:
        DetectorError: a file cannot be read or is invalid, or the device is not available.
    """
    if not weights:
        source = "pass weights=best.pt, or call custom with its path"
        _LOGGER.warning(f"{cfg} has random weights: it is untrained and detects nothing of use; {source}")
    return _autoshape.create_detector(
        cfg, weights=weights, classes=classes, channels=channels, device=_name(device), autoshape=autoshape
    )


def _name(device: object) -> str:
    """Return a device in any form as text."""
    return "" if device is None else str(device)


class _Entry:
    """A named model with the signature of YOLOv5's entry points."""

    def __init__(self, cfg: str) -> None:
        self.cfg = cfg
        self.__doc__ = (
            f"Build {cfg} with random weights, of which `pretrained=False` does not warn, or with those of `weights` "
            "that match; see `create`."
        )

    def __call__(
        self,
        pretrained: bool | None = None,
        channels: int = 3,
        classes: int | None = None,
        autoshape: bool = True,
        _verbose: bool = True,
        device: object = None,
        *,
        weights: str = "",
        verbose: bool = True,
    ) -> _Model:
        if pretrained and not weights:
            name = self.cfg.replace("-AKConv", "").replace(".yaml", ".pt")
            fix = f"download {_RELEASE}{name}, and pass weights={name}"
            raise _ConfigError("pretrained", "no weights are shipped or downloaded", fix=fix)
        if pretrained is None or weights:
            return create(self.cfg, weights, channels, classes, autoshape, device)
        return _autoshape.create_detector(
            self.cfg, classes=classes, channels=channels, device=_name(device), autoshape=autoshape
        )


yolov5n, yolov5s, yolov5m, yolov5l, yolov5x = (_Entry(f"yolov5{size}.yaml") for size in "nsmlx")
yolov5n6, yolov5s6, yolov5m6, yolov5l6, yolov5x6 = (_Entry(f"yolov5{size}6.yaml") for size in "nsmlx")
yolov5n_akconv, yolov5s_akconv, yolov5m_akconv, yolov5l_akconv, yolov5x_akconv = (
    _Entry(f"yolov5{size}-AKConv.yaml") for size in "nsmlx"
)
