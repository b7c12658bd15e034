"""The command `summary`: the scores of the last run, and where its results are."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from steelseg.core.classes import ClassInfo
from steelseg.core.files import read_metrics
from steelseg.model.card import read_card
from steelseg.quality.operating_point import shortfall
from steelseg.tracking.store import ui_command
from steelseg.tune.headline import interval, readable
from steelseg.tune.metrics import caveat


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Describe `summary` to a parser and return the function that runs it."""
    parser.description = (
        "Print the scores of the last run in this folder and where the results are."
    )
    return lambda _: iter([summarise(Path())])


def summarise(root: Path) -> str:
    """Summarise the last run in `root`.

    Raises:
        BadInput: the pipeline has not finished there.
    """
    scores = read_metrics(root / "metrics/tune_threshold.json")
    rows = read_metrics(root / "metrics/submit.json")
    classes = read_card(root / "models").named_classes
    per_class = "  ".join(
        f"{one.name}: {scores[f'positive_dice_class_{one.id}']:.3f}"
        for one in classes
        if f"positive_dice_class_{one.id}" in scores
    )
    notes = [caveat(scores, classes), *_verdicts(scores)]
    fitted, optimistic = scores["pair_dice"], scores["optimistic_pair_dice"]
    baseline = scores["all_empty_pair_dice"]
    others = [
        f"  {one.value:<8} {one.label}{_bracketed(one.interval)}"
        for one in readable(scores)
        if one.name != "pair_dice"
    ]
    return "\n".join(
        [
            "",
            "pair-Dice of the validation images",
            f"  {fitted:.4f}   cross-fitted: rules tuned and scored on different images"
            f"{_range(scores, 'pair_dice', '.4f')}",
            f"  {baseline:.4f}   predicting nothing ({fitted - baseline:+.4f} gained over it)",
            f"  {optimistic:.4f}   rules tuned and scored on the same images: too optimistic",
            *others,
            f"  Dice where there is a defect: {per_class or 'unknown'}",
            *(f"  {note}" for note in notes if note),
            *_held_out(scores, classes),
            "",
            f"submission    submission.csv ({rows['rows']} rows, {rows['masks']} masks)",
            "report        reports/index.html",
            "model         models/ (safetensors, ONNX, postprocess.json)",
            "metrics       dvc metrics show   dvc plots show   dvc exp show",
            f"MLflow        make ui   or   {ui_command()}",
        ]
    )


def _held_out(scores: Mapping[str, float], classes: Sequence[ClassInfo]) -> Iterator[str]:
    """Yield lines on the held-out test set, if there is one."""
    if "held_out_images" not in scores:
        return
    n_images, n_groups = scores["held_out_images"], scores["held_out_groups"]
    dice, baseline = scores["held_out_pair_dice"], scores["held_out_all_empty_pair_dice"]
    name = "held_out_positive_dice_class_"
    per_class = "  ".join(
        f"{one.name}: {scores[f'{name}{one.id}']:.3f}{_range(scores, f'{name}{one.id}', '.3f')}"
        for one in classes
        if f"{name}{one.id}" in scores
    )
    yield f"pair-Dice of the test set: {n_images} images held out, in {n_groups} groups"
    yield f"  {dice:.4f}   by the tuned rules{_range(scores, 'held_out_pair_dice', '.4f')}"
    yield f"  {baseline:.4f}   predicting nothing ({dice - baseline:+.4f} gained over it)"
    yield f"  Dice where there is a defect: {per_class or 'unknown'}"


def _verdicts(scores: Mapping[str, float]) -> Iterator[str]:
    """Yield the escapes at 50 false alarms per 1,000 clean images, and whether it is promised."""
    if "escapes_at_50" not in scores:
        return
    yield (
        "Verdicts at 50 false alarms per 1,000 clean images: "
        f"{scores['escapes_at_50']:.1%} of the images with a defect escape"
        f"{_range(scores, 'escapes_at_50', '.1%')}"
    )
    if "least_false_alarms" in scores and not scores["promised_at_50"]:
        least = scores["least_false_alarms"] / 1000
        numbers = int(scores["clean_images"]), int(scores["clean_groups"])
        yield f"  that limit is not promised: {shortfall(least, *numbers)}"


def _range(scores: Mapping[str, float], name: str, form: str) -> str:
    return _bracketed(interval(scores, name, form))


def _bracketed(ends: str) -> str:
    return f" (95%: {ends})" if ends else ""
