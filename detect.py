"""Detect objects: `python detect.py --weights runs/train/exp/weights/best.pt --source images/`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and detect."""
    from utils.options import DetectOptions
    from utils.options.command_line import read_options

    options, _ = read_options(DetectOptions, description=__doc__)
    from utils.detection.run import run_detection

    run_detection(options)


if __name__ == "__main__":
    run_script(main)
