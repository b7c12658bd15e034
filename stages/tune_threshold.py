"""Tune each class's threshold, areas and gate on the validation fold, and cross-fit the score."""

from pathlib import Path

from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.model.card import CARD, read_card
from steelseg.predict.ensemble import by_fold, member_folders
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.rules import write_rules
from steelseg.predict.views import ViewsConfig
from steelseg.registry.log import log_model
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run
from steelseg.tracking.store import ui_command
from steelseg.tune import outcome
from steelseg.tune.metrics import caveat
from steelseg.tune.search import TuneConfig
from steelseg.tune.tuning import Setting, tune
from steelseg.tune.validation import Progress

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
        setting = Setting(models, folders, cache, folds, config, inference, views)
        tuned = tune(setting, card.weights_sha256, show)
        write_rules(MODEL, tuned.rules)
        write_json(Path("metrics/tune_threshold.json"), tuned.scores)
        names = [cache.names[row] for row in tuned.rows]
        by_class = tuned.rules.by_class
        outcome.write_validation(VALIDATION, names, tuned.groups, by_class, *tuned.evidence)
        tracker.artifact(VALIDATION)  # which `champion` compares models by
        outcome.write_landscape(
            LANDSCAPE, outcome.landscape_of(tuned.evidence.table, cache.classes, config)
        )
        log_model(tracker, folders, cache.image(tuned.rows[0]), tuned.scores)
    if note := caveat(tuned.scores, cache.class_infos):
        print(f"warning: {note}")
    print(f"MLflow runs: {ui_command()}")


if __name__ == "__main__":
    run(main)
