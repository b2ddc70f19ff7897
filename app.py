"""Look at trained models in the browser: `python app.py --weights best.pt`."""

from utils.cli import run_script


def main() -> None:
    """Parse the command line and serve the page until it is stopped."""
    from utils.options.app import AppOptions
    from utils.options.command_line import read_options

    options, _ = read_options(AppOptions, description=__doc__)
    from utils.app.run import run_app

    run_app(options)


if __name__ == "__main__":
    run_script(main)
