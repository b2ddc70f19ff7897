"""Detect objects: `python detect.py --weights runs/train/exp/weights/best.pt --source images/`."""

from utils.cli import parse_options, run_script


def main() -> None:
    """Parse the command line and detect."""
    from utils.options import DetectOptions

    options, _ = parse_options(DetectOptions, None, description=__doc__)
    from utils.detection.run import run_detection

    run_detection(options)


if __name__ == "__main__":
    run_script(main)
