"""The command `compare`: two models on the same images. Is the difference more than noise?"""

import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from steelseg.core.arrays import Float64
from steelseg.core.errors import BadInput
from steelseg.core.files import write_text
from steelseg.data.cache import Cache
from steelseg.quality.intervals import CONFIDENCE, Estimate, mean
from steelseg.registry.find import find_run, is_address
from steelseg.report.comparison import render
from steelseg.tracking.store import open_store
from steelseg.tune.metrics import TRUE, pair_dice
from steelseg.tune.outcome import counts_of, read_validation

VALIDATION = Path("data/validation.parquet")
CACHE = Path("data/cache")
SHOWN, DRAWN = 5, 8  # images that changed most, named and drawn
Verdict = Literal["better", "worse", "within noise"]


class Comparison(NamedTuple):
    """The gain in mean Dice from the first model to the second, and the images that changed."""

    overall: Estimate
    by_class: dict[int, Estimate]
    better: list[str]
    """images on which the second model is better, largest gain first"""
    worse: list[str]
    n_images: int
    n_groups: int

    @property
    def verdict(self) -> Verdict:
        """Whether the second model is better, worse, or not distinguishable from the first."""
        if self.overall.low > 0:
            return "better"
        return "worse" if self.overall.high < 0 else "within noise"

    @property
    def difference(self) -> str:
        """The difference of the means with its interval and the verdict, as text."""
        return f"{_signed(self.overall)}: {self.verdict}"


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `compare` to a parser and return the function that runs it."""
    parser.description = (
        "Compare the cross-fitted pair-Dice of two models on the images that both were validated "
        "on. Prints the difference with its 95% interval, in all and by class, and the images that "
        "changed most. Name an experiment of `dvc exp show`, a Git revision, the folder of a "
        "finished run (`.` for this one), or a model in MLflow (models:/steelseg@champion, "
        "models:/steelseg/3, runs:/<id>/model)."
    )
    parser.add_argument("first", help="the model to compare with, such as main")
    parser.add_argument("second", help="the model that may be better, such as an experiment's name")
    help_ = "HTML file to write, with the images that changed most side by side; needs data/cache"
    parser.add_argument("--page", type=Path, help=help_)
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    names = arguments.first, arguments.second
    tables = [find_validation(name) for name in names]
    found = compare_tables(*tables)
    lines = list(describe(found))
    yield from lines
    if arguments.page:
        images = {"Better": found.better[:DRAWN], "Worse": found.worse[:DRAWN]}
        titles = [f"{at}: {name}" for at, name in zip(("first", "second"), names, strict=True)]
        by_title = dict(zip(titles, tables, strict=True))
        write_text(arguments.page, render(by_title, images, lines, Cache(CACHE)))
        yield f"page: {arguments.page}"


def find_validation(where: str) -> pd.DataFrame:
    """Read data/validation.parquet of a folder, an experiment, a Git revision or a model in MLflow.

    Raises:
        SteelsegError: there is none, or it is damaged.
    """
    if is_address(where):
        with open_store() as client:
            return validation_of(client, find_run(client, where))
    if Path(where).is_dir():
        return read_validation(Path(where) / VALIDATION)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / VALIDATION.name
        words = ["dvc", "get", ".", str(VALIDATION), f"--rev={where}", "--out", str(path)]
        got = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if got.returncode:
            reason = " ".join(got.stderr.split()).removeprefix("ERROR: ")
            raise BadInput(
                f"{where}: expected an experiment, a Git revision, a folder with {VALIDATION}, or "
                f"an address of MLflow: {reason}"
            )
        return read_validation(path)


def validation_of(client: Any, run: Any) -> pd.DataFrame:
    """Read the table of validation images that a run of tune_threshold left in MLflow.

    Raises:
        BadInput: there is none, as for runs of older versions, or it is damaged.
    """
    experiment = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    with TemporaryDirectory() as temporary:
        try:
            path = client.download_artifacts(experiment, VALIDATION.name, temporary)
        except Exception as error:  # of MLflow, its store, or the file system
            raise BadInput(f"{run.info.run_name}: has no {VALIDATION.name} in MLflow") from error
        return read_validation(Path(path))


def compare_tables(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two models by what `tune.outcome.read_validation` returns for each.

    Only images in both tables count.

    Raises:
        BadInput: there are none, or the tables are of other classes or annotations.
    """
    classes = [table["class_id"].unique().tolist() for table in (first, second)]
    if classes[0] != classes[1]:
        raise BadInput(
            f"expected two models of the same classes, but got {' and '.join(map(str, classes))}"
        )
    counts = [counts_of(table, honest=True) for table in (first, second)]
    n_classes = len(classes[0])
    names = [table["image"].tolist()[::n_classes] for table in (first, second)]
    rows = {name: row for row, name in enumerate(names[1])}
    common = [row for row, name in enumerate(names[0]) if name in rows]
    if not common:
        raise BadInput("no image was validated by both models: their folds or data sets differ")
    shared = [names[0][row] for row in common]
    before, after = counts[0][common], counts[1][[rows[name] for name in shared]]
    if not np.array_equal(before[..., TRUE], after[..., TRUE]):
        raise BadInput("the two models were validated on different annotations of the same images")
    groups = first["group"].to_numpy()[::n_classes][common]
    return compare(shared, classes[0], groups, pair_dice(before), pair_dice(after))


def describe(found: Comparison) -> Iterator[str]:
    """Yield a comparison as lines."""
    yield f"validated by both: {found.n_images} images in {found.n_groups} groups"
    yield f"pair-Dice  {found.difference}"
    for class_id, estimate in found.by_class.items():
        yield f"  class {class_id}  {_signed(estimate)}"
    for kind, names in (("better", found.better), ("worse", found.worse)):
        most = f", most of all {', '.join(names[:SHOWN])}" if names else ""
        yield f"{len(names)} images {kind}{most}"
    yield (
        "The intervals cover new images under these two models. Another seed may change the scores "
        "by more; `python -m steelseg kfold --seeds 3` shows by how much."
    )


def _signed(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:+.4f} (95%: {low:+.4f} to {high:+.4f})"


def compare(
    names: Sequence[str],
    classes: Sequence[int],
    groups: npt.ArrayLike,
    first: Float64,
    second: Float64,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare the Dice (N, C) of N images under two models that were trained without them.

    Images of a group are not independent, so the intervals are computed over groups. They cover new
    images under these two models, not the variation between seeds.

    Raises:
        BadInput: there are no images, or the shapes differ.
    """
    if first.shape != second.shape or first.shape != (len(names), len(classes)) or not first.size:
        raise BadInput(
            f"expected Dice of the same {len(names)} images and {len(classes)} classes, "
            f"but got {first.shape} and {second.shape}"
        )
    gain = second - first
    by_class = [_sure(gain[:, c], groups, confidence) for c in range(len(classes))]
    of_image = gain.mean(axis=1)
    order = np.argsort(of_image, kind="stable")
    return Comparison(
        _sure(of_image, groups, confidence),
        dict(zip(classes, by_class, strict=True)),
        [names[i] for i in order[::-1] if of_image[i] > 0],
        [names[i] for i in order if of_image[i] < 0],
        len(names),
        len(np.unique(np.asarray(groups))),
    )


def _sure(gains: Float64, groups: npt.ArrayLike, confidence: float) -> Estimate:
    estimate = mean(gains, groups, confidence)
    assert estimate is not None, "there are images"
    return estimate
