"""The command `kfold`: one model per fold, scored out of fold, and an ensemble of all of them."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from steelseg.core.errors import BadInput
from steelseg.core.files import read_json
from steelseg.core.params import load
from steelseg.data.splitting import SplitConfig
from steelseg.experiments.queue import Experiment, named, refuse_failed, run_here, run_queued
from steelseg.model.card import FILES
from steelseg.registry.member import add_member

METRIC, BASELINE = "pair_dice", "all_empty_pair_dice"
MODEL, SCORES = Path("models"), Path("metrics/tune_threshold.json")
Scores = dict[str, float]


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `kfold` to a parser and return the function that runs it."""
    parser.description = (
        "Train one model per fold through DVC's queue, then tune the rules on the out-of-fold "
        "predictions of all images, and predict the test images by the mean of the models. "
        "Running the command again runs only what is missing."
    )
    add = parser.add_argument
    add(
        "-S",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="as in dvc exp run",
    )
    add("--jobs", type=int, default=1, help="parallel folds (default: 1)")
    add(
        "--again",
        action="store_true",
        help="rerun trained folds too, for instance after the data changed",
    )
    return _run


def plan(n_folds: int, overrides: Sequence[str]) -> list[Experiment]:
    """Return one experiment per fold.

    Raises:
        BadInput: an override sets a parameter that this command sets itself.
    """
    for override in overrides:
        if override.partition("=")[0] in ("fold", "ensemble"):
            raise BadInput(f"`-S {override}`: `fold` and `ensemble` are set by this command")
    # an ensemble set in params.yaml must not predict for a single fold
    alone = [*overrides, "ensemble=[]"]
    return [named(f"kfold-{fold}", [*alone, f"fold={fold}"]) for fold in range(n_folds)]


def table(scores: Mapping[int, Scores], together: Scores) -> Iterator[str]:
    """Yield a line per fold, one for their mean and spread, and one for all images out of fold."""
    yield "fold   pair-Dice   all-empty"
    for fold, of_fold in scores.items():
        note = "   none of its images shows a defect" if of_fold[BASELINE] == 1 else ""
        yield f"{fold:<6} {of_fold[METRIC]:.4f}      {of_fold[BASELINE]:.4f}{note}"
    values = [of_fold[METRIC] for of_fold in scores.values()]
    yield f"mean   {mean(values):.4f} ± {stdev(values):.4f} (standard deviation over the folds)"
    yield (
        f"all    {together[METRIC]:.4f}      {together[BASELINE]:.4f}   "
        "one set of rules for all images, each predicted by the model not trained on it"
    )


def _run(arguments: Namespace) -> Iterator[str]:
    planned = plan(_n_folds(arguments.overrides), arguments.overrides)
    missing = [e for e in planned if arguments.again or _scores(e) is None]
    yield f"{len(planned) - len(missing)} of {len(planned)} folds are trained"
    run_queued(missing, "tune_threshold", arguments.jobs)
    scores = {fold: _scores(experiment) for fold, experiment in enumerate(planned)}
    refuse_failed([planned[fold] for fold, found in scores.items() if found is None], len(planned))
    members = [_collect(experiment) for experiment in planned[1:]]
    together = [f"ensemble=[{','.join(members)}]", "fold=0"]
    run_here(named("kfold-all", [*arguments.overrides, *together]))
    yield from table({k: found for k, found in scores.items() if found}, read_json(SCORES))


def _n_folds(overrides: Sequence[str]) -> int:
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    configured = load(SplitConfig, "stratified_split").n_folds
    return int(given.get("stratified_split.n_folds", configured))


def _collect(experiment: Experiment) -> str:
    """Copy the model of a finished experiment from DVC's cache; return its name as a member."""
    files = _files_of(experiment)
    with TemporaryDirectory() as temporary:
        for name in FILES:
            files.get_file(str(MODEL / name), str(Path(temporary, name)))
        return add_member(Path(temporary))


def _scores(experiment: Experiment) -> Scores | None:
    """Return the scores of an experiment, or None if it has not finished."""
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        scores: Scores = json.loads(_files_of(experiment).cat_file(str(SCORES)))
    except (DvcException, SCMError, FileNotFoundError):
        return None
    return scores


def _files_of(experiment: Experiment) -> Any:
    from dvc.api import DVCFileSystem

    return DVCFileSystem(".", rev=experiment.name)
