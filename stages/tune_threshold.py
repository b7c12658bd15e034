"""Find each class's threshold, areas and gate on the validation fold, and score them honestly."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.core.sealed import read_sealed_json
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.predict.ensemble import by_fold, member_folders, out_of_fold_maps
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.rules import Rules, write_rules
from steelseg.predict.views import ViewsConfig
from steelseg.registry.log import log_model
from steelseg.tracking.mlflow_run import stage_run, ui_command
from steelseg.tracking.stage import run
from steelseg.tune import outcome, search
from steelseg.tune.components import ComponentTable
from steelseg.tune.outcome import Landscape
from steelseg.tune.search import TuneConfig

MODEL, FOLDS = Path("models"), Path("data/folds.parquet")
VALIDATION, LANDSCAPE = Path("data/validation.parquet"), Path("data/landscape.json")


def main() -> None:
    """Write models/postprocess.json and the scores of the validation fold."""
    config, inference = load(TuneConfig, "tune_threshold"), load(InferenceConfig)
    views = load(ViewsConfig)
    cache = Cache(Path("data/cache"))
    cache.refuse_other(read_sealed_json(MODEL / "model.json").get("cache"), MODEL / "model.json")
    folds = fold_table.read(FOLDS, cache.names, cache.annotations)
    folders = member_folders(MODEL, views.ensemble)
    models = by_fold(folders, config.fold, cache.identity, sha256(FOLDS))
    rows_of = {fold: np.flatnonzero(folds["fold"] == fold).tolist() for fold in models}
    rows = [row for of_fold in rows_of.values() for row in of_fold]
    weights = sha256(MODEL / "model.safetensors")
    params = config.model_dump() | inference.model_dump() | views.model_dump()
    identity = {"params": params, "weights": weights, "cache": cache.identity}
    with (
        work_folder("tune_threshold", identity) as folder,
        stage_run("tune_threshold", folder) as tracker,
    ):
        tracker.params(params)
        tracker.tag("fold", ", ".join(map(str, models)))
        maps = out_of_fold_maps(models, rows_of, cache.image, inference, views)
        table = ComponentTable(config.thresholds, len(cache.classes))
        for row, probability_chw in tqdm(maps, "validating", len(rows), unit="image", disable=None):
            table.add(probability_chw, cache.masks(row))
        channels = range(len(cache.classes))
        rules = search.search(table, config)
        honest = search.cross_count(table, config, folds["group"].to_numpy()[rows])
        scores = search.report(table, rules, honest, cache.classes)
        tuned = Rules(dict(zip(cache.classes, rules, strict=True)), weights, views)
        write_rules(MODEL / "postprocess.json", tuned)
        write_json(Path("metrics/tune_threshold.json"), scores)
        names = [cache.names[row] for row in rows]
        confidences = np.stack([table.confidences(c) for c in channels], axis=1)
        counts = search.count(table, rules)
        outcome.write(VALIDATION, names, cache.classes, confidences, counts, honest)
        heights = [search.landscape(table, c, config) for c in channels]
        by_class = dict(zip(cache.classes, heights, strict=True))
        landscape = Landscape(config.thresholds, config.min_component_areas, by_class)
        outcome.write_landscape(LANDSCAPE, landscape)
        tracker.summary(scores)
        log_model(tracker, folders, cache.image(rows[0]))
    print(f"MLflow runs: {ui_command()}")


if __name__ == "__main__":
    run(main)
