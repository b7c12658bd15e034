"""The command `kfold`: one model per fold, scored out of fold, and an ensemble of all of them."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, mean, stdev, variance
from tempfile import TemporaryDirectory
from typing import Any

from steelseg.core.errors import BadInput
from steelseg.core.files import read_json
from steelseg.core.params import PARAMS, load, read_yaml
from steelseg.data.splitting import SplitConfig
from steelseg.experiments.queue import Experiment, named, refuse_failed, run_here, run_queued
from steelseg.model.card import FILES
from steelseg.quality.intervals import CONFIDENCE, student
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
    add(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train each fold with N seeds, to see how much of a gain is luck; the models of the "
        "first seed predict (default: 1)",
    )
    add("--jobs", type=int, default=1, help="parallel folds (default: 1)")
    add(
        "--again",
        action="store_true",
        help="rerun trained folds too, for instance after the data changed",
    )
    return _run


def plan(n_folds: int, overrides: Sequence[str], seed: int | None = None) -> list[Experiment]:
    """Return one experiment per fold, with another seed of the training if one is given.

    Raises:
        BadInput: an override sets a parameter that this command sets itself.
    """
    for override in overrides:
        if override.partition("=")[0] in ("fold", "ensemble"):
            raise BadInput(f"`-S {override}`: `fold` and `ensemble` are set by this command")
    # an ensemble set in params.yaml must not predict for a single fold
    alone = [*overrides, "ensemble=[]"]
    if seed is not None:
        alone = [o for o in alone if not o.startswith("seed=")] + [f"seed={seed}"]
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


def seed_table(values: Mapping[int, Sequence[float]]) -> Iterator[str]:
    """Yield the pair-Dice of each seed, and what difference between two seeds is luck.

    It is the interval that holds the difference of 95 of 100 pairs of new trainings: Student's, for
    as many degrees of freedom as the variance between seeds was estimated with.

    Args:
        values: the pair-Dice of each fold, by two or more seeds.
    """
    means = {seed: fmean(of_seed) for seed, of_seed in values.items()}
    of_folds = list(zip(*values.values(), strict=True))
    spread, alone = stdev(means.values()), fmean(map(variance, of_folds)) ** 0.5
    yield "seed   pair-Dice, mean over the folds"
    for seed, value in means.items():
        yield f"{seed:<6} {value:.4f}"
    yield f"mean   {fmean(means.values()):.4f} ± {spread:.4f} (standard deviation over the seeds)"
    luck = _luck(spread, len(means) - 1), _luck(alone, len(of_folds) * (len(means) - 1))
    yield (
        f"Another seed alone changes the mean by up to {luck[0]:.4f}, and the score of one fold by "
        f"up to {luck[1]:.4f}, in 95 of 100 cases. A smaller gain may be luck."
    )


def _luck(deviation: float, degrees: int) -> float:
    return float(student(CONFIDENCE, degrees) * 2**0.5 * deviation)


def _run(arguments: Namespace) -> Iterator[str]:
    if arguments.seeds < 1:
        raise BadInput(f"`--seeds {arguments.seeds}`: expected 1 or more")
    n_folds, first = _numbers(arguments.overrides)
    seeds = range(first, first + arguments.seeds)
    # without its seed among the overrides, the first is what `kfold` without --seeds has trained
    planned = {s: plan(n_folds, arguments.overrides, None if s == first else s) for s in seeds}
    every = [experiment for of_seed in planned.values() for experiment in of_seed]
    missing = [e for e in every if arguments.again or _scores(e) is None]
    yield f"{len(every) - len(missing)} of {len(every)} folds are trained"
    run_queued(missing, "tune_threshold", arguments.jobs)
    scores = {experiment: _scores(experiment) for experiment in every}
    refuse_failed([experiment for experiment, found in scores.items() if not found], len(every))
    members = [_collect(experiment) for experiment in planned[first][1:]]
    together = [f"ensemble=[{','.join(members)}]", "fold=0"]
    run_here(named("kfold-all", [*arguments.overrides, *together]))
    found = {s: [scores[e] or {} for e in of_seed] for s, of_seed in planned.items()}
    yield from table(dict(enumerate(found[first])), read_json(SCORES))
    if len(seeds) > 1:
        yield from seed_table({s: [one[METRIC] for one in folds] for s, folds in found.items()})


def _numbers(overrides: Sequence[str]) -> tuple[int, int]:
    """Return the number of folds and the seed, as overridden or in params.yaml."""
    split = "stratified_split"
    values: dict[str, Any] = {"seed": read_yaml(PARAMS).get("seed")}
    values[f"{split}.n_folds"] = load(SplitConfig, split).n_folds
    values |= dict(override.split("=", 1) for override in overrides if "=" in override)
    numbers = values[f"{split}.n_folds"], values["seed"]
    try:
        return int(numbers[0]), int(numbers[1])
    except (TypeError, ValueError):
        raise BadInput("expected {} folds and seed {} to be numbers".format(*numbers)) from None


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
