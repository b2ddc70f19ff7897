"""Train a detector: `python train.py --cfg yolov5n-AKConv.yaml --data shapes.yaml --epochs 100 --imgsz 320`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and train."""
    from utils.options import TrainOptions
    from utils.options.command_line import read_options

    options, given = read_options(TrainOptions, description=__doc__)
    if options.evolve:
        from utils.training.evolve import run_evolution

        run_evolution(options)
        return
    from utils.training.run import run_training

    run_training(options, given)


if __name__ == "__main__":
    run_script(main)
