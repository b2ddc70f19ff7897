"""Export a checkpoint to other formats: `python export.py --weights best.pt --include torchscript onnx openvino`."""

from utils.cli import parse_options, run_script


def main() -> None:
    """Parse the command line and export."""
    from utils.options import ExportOptions

    options, given = parse_options(ExportOptions, None, description=__doc__)
    from utils.export.run import run_export

    run_export(options, given)


if __name__ == "__main__":
    run_script(main)
