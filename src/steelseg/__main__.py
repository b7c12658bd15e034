"""The command line: `python -m steelseg <command>`.

A command is a function `command` of its module. It adds its arguments to a parser and returns what
runs it, which yields the lines to print. Only the module of the command that was typed is imported.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from steelseg.core.errors import SteelsegError, in_words

COMMANDS = {
    "ablation": (
        "experiments.ablation",
        "try the switches of a plan one at a time, and tabulate what they gain",
    ),
    "champion": (
        "registry.champion",
        "make the best registered model, or one that you name, the champion",
    ),
    "compare": ("experiments.compare", "test whether one of two models is better than the other"),
    "demo": ("demo.command", "try the model on images of your own, in a browser"),
    "export": ("formats.exporting", "write labels or predictions in a format of other tools"),
    "import": ("formats.importing", "turn annotated images in any format into a data set"),
    "kfold": ("experiments.kfold", "train one model per fold, and predict with all of them"),
    "member": ("registry.member", "collect a model as a member of an ensemble"),
    "pseudo-label": (
        "experiments.pseudo_labels",
        "make a data set that has confident predictions of test images as masks",
    ),
    "score": ("score.command", "score any number of images with a model"),
    "summary": ("report.summary", "print how good the last run is and where its results are"),
    "ui": ("tracking.store", "show the experiments in MLflow, in a browser"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the words of the command line name."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog="python -m steelseg",
        description="What there is beside the pipeline, which `make repro` runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (module, help_) in COMMANDS.items():
        own = commands.add_parser(name, help=help_)
        if words and words[0] == name:
            run = import_module(f"steelseg.{module}").command(own)
    arguments = parser.parse_args(words)
    try:
        for line in run(arguments):
            print(line, flush=True)
    except SteelsegError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except OSError as error:
        if error.strerror is None:  # raised by a library, not by the system
            raise
        sys.exit(f"error: {in_words(error)}")


if __name__ == "__main__":
    # dvc, and the `python` of dvc.yaml, are those beside this interpreter
    beside, path = Path(sys.executable).parent, os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{beside}{os.pathsep}{path}"
    main()
