"""Export a checkpoint to other formats: `python export.py --weights best.pt --include torchscript onnx ncnn`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and export."""
    from utils.options import ExportOptions
    from utils.options.command_line import read_options

    options, given = read_options(ExportOptions, description=__doc__)
    from utils.export.run import run_export

    run_export(options, given)


if __name__ == "__main__":
    run_script(main)
