"""Tune each class's threshold, areas and gate on the validation fold, and cross-fit the score."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.model.card import CARD, read_card
from steelseg.predict.ensemble import by_fold, member_folders
from steelseg.predict.inference import InferenceConfig, open_models
from steelseg.predict.rules import Rules, take_probe, write_rules
from steelseg.predict.views import ViewsConfig
from steelseg.quality.verdicts import find
from steelseg.registry.log import log_model
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run
from steelseg.tracking.store import ui_command
from steelseg.tune import defects, headline, held_out, outcome, search
from steelseg.tune.metrics import caveat
from steelseg.tune.search import TuneConfig
from steelseg.tune.validation import Progress, match_defects, probe_image, validate

MODEL, FOLDS = Path("models"), Path("data/folds.parquet")
VALIDATION, LANDSCAPE = Path("data/validation.parquet"), Path("data/landscape.json")


def show(task: str) -> Progress:
    """Return a progress bar for a task over images."""
    return lambda items, total: tqdm(items, task, total, unit="image", disable=None)


def main() -> None:
    """Write models/postprocess.json and the scores on the validation fold and the test set."""
    config, inference = load(TuneConfig, "tune_threshold"), load(InferenceConfig)
    views = load(ViewsConfig)
    cache, card = Cache(Path("data/cache")), read_card(MODEL)
    cache.refuse_other(card.cache, MODEL / CARD)
    config.operating_point.check(cache.classes)
    folds = fold_table.read(FOLDS, cache.names, cache.annotations)
    folders = member_folders(MODEL, views.ensemble)
    models = by_fold(folders, config.fold, cache.identity, sha256(FOLDS))
    params = config.model_dump() | inference.model_dump() | views.model_dump()
    identity = {"params": params, "weights": card.weights_sha256, "cache": cache.identity}
    with (
        work_folder("tune_threshold", identity) as folder,
        stage_run("tune_threshold", folder) as tracker,
    ):
        tracker.params(params)
        tracker.tag("fold", ", ".join(map(str, models)))
        validation = validate(
            models,
            folds["fold"].to_numpy(),
            cache,
            config.thresholds,
            inference,
            views,
            show("validating"),
        )
        rows, table = validation
        rules = search.search(table, config)
        groups = folds["group"].to_numpy(dtype=np.int64)[rows]
        honest, honest_rules = search.cross_fit(table, config, groups)
        images = headline.images_of(table, groups, config.n_splits)
        sure = headline.calibrated(images)
        verdicts = find(images, cache.classes, config.operating_point)
        matchings = match_defects(
            models,
            folds["fold"].to_numpy(),
            cache,
            dict(zip(rows, honest_rules, strict=True)),
            inference,
            views,
            show("matching defects"),
        )
        scores = {
            **search.report(table, rules, honest, cache.classes),
            **headline.figures(honest, groups),
            **headline.verdict_figures(images, verdicts),
            **defects.figures(matchings, groups, cache.classes),
        }
        if len(test_rows := fold_table.rows_held_out(folds)):
            runtime = open_models(folders, inference, views, many=True)
            counts = held_out.count(cache, test_rows, runtime, rules, show("testing"))
            test_groups = folds["group"].to_numpy(dtype=np.int64)[test_rows]
            scores |= held_out.report(counts, test_groups, cache.classes)
        network = open_models(folders, inference, views).network
        probe = take_probe(probe_image(cache, validation), network)
        by_class = dict(zip(cache.classes, rules, strict=True))
        write_rules(MODEL, Rules(by_class, card.weights_sha256, views, probe, verdicts))
        write_json(Path("metrics/tune_threshold.json"), scores)
        names = [cache.names[row] for row in rows]
        outcome.write_validation(
            VALIDATION, names, groups, by_class, table, honest, sure, matchings
        )
        tracker.artifact(VALIDATION)  # which `champion` compares models by
        outcome.write_landscape(LANDSCAPE, outcome.landscape_of(table, cache.classes, config))
        log_model(tracker, folders, cache.image(rows[0]), scores)
    if note := caveat(scores, cache.class_infos):
        print(f"warning: {note}")
    print(f"MLflow runs: {ui_command()}")


if __name__ == "__main__":
    run(main)
