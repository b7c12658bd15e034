"""The command `champion`: chooses the finished run with the best cross-fitted score.

Runs are comparable if validated on the same images: same data set, fold and folds.parquet.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from steelseg.core.errors import BadInput
from steelseg.experiments.compare import compare_tables, validation_of
from steelseg.registry.find import find_run, is_address
from steelseg.registry.log import REGISTERED, register
from steelseg.tracking.runs import STAGE_TAG
from steelseg.tracking.store import EXPERIMENT, open_store

ALIAS = "champion"
METRIC, BASELINE = "pair_dice", "all_empty_pair_dice"
FOLDS_TAG = "dep.data/folds.parquet"


class Candidate(NamedTuple):
    """A finished run with a logged model and its registered version, None if not registered."""

    run_id: str
    name: str
    model_uri: str
    version: str | None
    dataset: str
    fold: str
    folds_md5: str
    score: float
    baseline: float

    @property
    def validation(self) -> tuple[str, str, str]:
        """What it was validated on; scores are comparable if this is equal."""
        return self.dataset, self.fold, self.folds_md5


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `champion` to a parser and return the function that runs it."""
    parser.description = (
        f"Give the alias `{ALIAS}` of the registered model `{REGISTERED}` to the finished run "
        f"with the best cross-fitted {METRIC}. Scores are comparable only among runs validated on "
        "the same images; else narrow the choice with --dataset and --fold, or name a run."
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--run",
        help="choose this run, by its id or name, its experiment's name, or its model's address "
        f"(models:/{REGISTERED}/3, runs:/<id>/model)",
    )
    one.add_argument("--version", help="choose this version of the registered model")
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="replace the champion even where the difference is within noise",
    )
    parser.add_argument("--dataset", help="compare only runs on this data set")
    parser.add_argument("--fold", help="compare only runs validated on this fold")
    return _run


def choose(
    candidates: Sequence[Candidate], run: str | None = None, version: str | None = None
) -> Candidate:
    """Return the named candidate, or the best; the latest of equals.

    Args:
        candidates: in the order in which they finished.
        run: a run's id or name, or an experiment's name (for its latest run).
        version: a version of the registered model.

    Raises:
        BadInput: there is none, or the best is asked for among runs that are not comparable.
    """
    if run is not None or version is not None:
        named = [c for c in candidates if _is_named(c, run, version)]
        if not named:
            what = f"run {run!r}" if run is not None else f"version {version}"
            raise BadInput(f"found no finished run with a model for {what}")
        return named[-1]
    if not candidates:
        raise BadInput("no finished run has a model to choose; run `make repro` first")
    if len({c.validation for c in candidates}) > 1:
        groups = sorted({_describe(c) for c in candidates})
        raise BadInput(
            "these runs were validated on different images, so their scores are not comparable: "
            f"{'; '.join(groups)}. Narrow the choice with --dataset and --fold, or name a --run"
        )
    return max(reversed(candidates), key=lambda c: c.score)


def table(
    candidates: Sequence[Candidate], chosen: Candidate, previous: str | None
) -> Iterator[str]:
    """Yield the candidates as lines, best first; marks the chosen one and the last champion."""
    yield f"{METRIC}  gained  version  validated on  run"
    for c in sorted(candidates, key=lambda c: (c.validation, -c.score)):
        was_champion = previous is not None and c.version == previous
        notes = ["chosen"] * (c == chosen) + ["previous champion"] * was_champion
        remark = f"   <- {', '.join(notes)}" if notes else ""
        gain = c.score - c.baseline
        columns = f"{c.score:9.4f} {gain:+7.4f}  {c.version or '-':>7}  {_describe(c)}"
        yield f"{columns}  {c.name} ({c.run_id[:8]}){remark}"


def _run(arguments: Namespace) -> Iterator[str]:
    with open_store() as client:
        yield from _crown(client, arguments)


def _crown(client: Any, arguments: Namespace) -> Iterator[str]:
    runs = finished(client)
    found = [
        c
        for c in runs
        if arguments.dataset in (None, c.dataset) and arguments.fold in (None, c.fold)
    ]
    if runs and not found:
        known = "; ".join(sorted({_describe(c) for c in runs}))
        raise BadInput(f"no finished run is of that --dataset and --fold; there are: {known}")
    run = arguments.run
    if run and is_address(run):
        run = find_run(client, run).info.run_id
    chosen = choose(found, run, arguments.version)
    previous = _champion(client)
    yield from table(found, chosen, previous)
    if not (arguments.anyway or arguments.run or arguments.version):
        champions = [c for c in found if previous and c.version == previous]
        yield from refuse_noise(client, champions, chosen)
    version = chosen.version or register(client, chosen.run_id, chosen.model_uri)
    if version == previous:
        yield f"{REGISTERED} version {version} remains the {ALIAS}"
        return
    client.set_registered_model_alias(REGISTERED, ALIAS, version)
    instead = f", instead of version {previous}" if previous else ""
    yield f"{REGISTERED} version {version} is now the {ALIAS}{instead}"
    yield f"load or serve it as models:/{REGISTERED}@{ALIAS}"


def refuse_noise(client: Any, champions: Sequence[Candidate], chosen: Candidate) -> Iterator[str]:
    """Refuse a best run that is not surely better than the champion.

    Nothing is refused if there is no champion among the comparable runs. If a run has no table of
    its validation images, as those of older versions, a line says that the test was left out.

    Raises:
        BadInput: the difference is within noise.
    """
    if not champions or champions[-1] == chosen:
        return
    runs = [client.get_run(one.run_id) for one in (champions[-1], chosen)]
    try:
        old, new = (validation_of(client, run) for run in runs)
    except BadInput as error:
        yield f"not compared image by image: {error}"
        return
    found = compare_tables(old, new)
    if found.verdict != "better":
        raise BadInput(
            f"{chosen.name} is not surely better than the {ALIAS} {champions[-1].name}: "
            f"pair-Dice {found.difference}. To choose it all the same, add --anyway "
            f"(make {ALIAS} ARGS=--anyway)"
        )


def finished(client: Any) -> list[Candidate]:
    """Return all finished runs with a score and a model, by start time."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    ids = [experiment.experiment_id]
    versions = _versions(client)
    models = {m.source_run_id: m.model_uri for m in _pages(client.search_logged_models, ids)}
    query = f"tags.`{STAGE_TAG}` = 'tune_threshold' and attributes.status = 'FINISHED'"
    order = ["attributes.start_time ASC"]
    runs = _pages(client.search_runs, ids, query, order_by=order)
    return [
        _candidate(run, models[run.info.run_id], versions.get(run.info.run_id))
        for run in runs
        if run.info.run_id in models and METRIC in run.data.metrics
    ]


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Yield the results of all pages of a search."""
    token = None
    while True:
        page = search(*arguments, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _candidate(run: Any, model_uri: str, version: str | None) -> Candidate:
    tags, metrics = run.data.tags, run.data.metrics
    return Candidate(
        run.info.run_id,
        run.info.run_name,
        model_uri,
        version,
        tags.get("dataset", ""),
        tags.get("fold", ""),
        tags.get(FOLDS_TAG, ""),
        metrics[METRIC],
        metrics[BASELINE],
    )


def _versions(client: Any) -> dict[str, str]:
    """Return the latest registered version of each run, by run id."""
    found = _pages(client.search_model_versions, f"name = '{REGISTERED}'")
    by_number = sorted(found, key=lambda version: int(version.version))
    return {str(version.run_id): str(version.version) for version in by_number}


def _champion(client: Any) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(REGISTERED, ALIAS).version)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def _is_named(candidate: Candidate, run: str | None, version: str | None) -> bool:
    if version is not None:
        return candidate.version == version
    assert run is not None
    names = (candidate.name, candidate.name.rpartition("/")[0])
    return run in names or (len(run) >= 6 and candidate.run_id.startswith(run))


def _describe(candidate: Candidate) -> str:
    folds = f" of {candidate.folds_md5[:6]}" if candidate.folds_md5 else ""
    return f"{candidate.dataset} fold {candidate.fold}{folds}"
