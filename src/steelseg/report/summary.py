"""The closing words of a run: how good it is, where its results lie, what to type next."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from steelseg.core.files import read_json
from steelseg.tracking.store import ui_command
from steelseg.tune.metrics import caveat


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Describe `summary` to a parser and return what runs it."""
    parser.description = "Say how good the last run in this folder is and where its results lie."
    return lambda _: iter([summarise(Path())])


def summarise(root: Path) -> str:
    """Say what the last run in `root` has come to.

    Raises:
        BadInput: the pipeline has not run to its end there.
    """
    data = read_json(root / "metrics/pivot_csv.json")
    scores = read_json(root / "metrics/tune_threshold.json")
    rows = read_json(root / "metrics/submit.json")
    per_class = "  ".join(
        f"class {c}: {scores[f'positive_dice_class_{c}']:.3f}"
        for c in data["images_per_class"]
        if f"positive_dice_class_{c}" in scores
    )
    note = caveat(scores, data["images_per_class"])
    baseline = scores["all_empty_pair_dice"]
    gain = scores["pair_dice"] - baseline
    return "\n".join(
        [
            "",
            "pair-Dice of the validation images",
            f"  {scores['pair_dice']:.4f}   cross-fitted: rules tuned on others of these images",
            f"  {baseline:.4f}   predicting nothing ({gain:+.4f} gained over it)",
            f"  {scores['optimistic_pair_dice']:.4f}   rules tuned on the same images: flatters",
            f"  Dice where there is a defect: {per_class or 'unknown'}",
            *([f"  {note}"] if note else []),
            "",
            f"submission    submission.csv ({rows['rows']} rows, {rows['masks']} masks)",
            "report        reports/index.html",
            "model         models/ (safetensors, ONNX, postprocess.json)",
            "metrics       dvc metrics show   dvc plots show   dvc exp show",
            f"MLflow        make ui   or   {ui_command()}",
        ]
    )
