"""Find each class's threshold, areas and gate on the validation fold, and score them honestly."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from steelseg import fold_table, postprocess_rules, tuning, validation_table
from steelseg.cache import Cache
from steelseg.checkpoints import work_folder
from steelseg.component_table import ComponentTable
from steelseg.files import sha256, write_json
from steelseg.inference import InferenceConfig, open_runtime, probability_maps
from steelseg.model_logging import log_model
from steelseg.params import load
from steelseg.postprocess_rules import Rules
from steelseg.sealed_json import read_sealed
from steelseg.stage import run
from steelseg.tracking import stage_run, ui_command
from steelseg.tuning import TuneConfig
from steelseg.validation_table import Landscape

MODEL = Path("models")
VALIDATION, LANDSCAPE = Path("data/validation.parquet"), Path("data/landscape.json")


def main() -> None:
    """Write models/postprocess.json and the scores of the validation fold."""
    config, inference = load(TuneConfig, "tune_threshold"), load(InferenceConfig)
    cache = Cache(Path("data/cache"))
    cache.refuse_other(read_sealed(MODEL / "model.json").get("cache"), MODEL / "model.json")
    folds = fold_table.read(Path("data/folds.parquet"), cache.names, cache.annotations)
    rows = np.flatnonzero(folds["fold"] == config.fold).tolist()
    weights = sha256(MODEL / "model.safetensors")
    identity = {"params": config.model_dump(), "weights": weights, "cache": cache.identity}
    with (
        work_folder("tune_threshold", identity) as folder,
        stage_run("tune_threshold", folder) as tracker,
    ):
        tracker.params(config.model_dump() | inference.model_dump())
        runtime = open_runtime(MODEL, inference.runtime, many=True)
        maps = probability_maps(rows, cache.image, runtime, inference.inference_batch_size)
        table = ComponentTable(config.thresholds, len(cache.classes))
        for row, probability_chw in tqdm(maps, "validating", len(rows), unit="image", disable=None):
            table.add(probability_chw, cache.masks(row))
        channels = range(len(cache.classes))
        rules = tuning.search(table, config)
        honest = tuning.cross_count(table, config, folds["group"].to_numpy()[rows])
        scores = tuning.report(table, rules, honest, cache.classes)
        tuned = Rules(dict(zip(cache.classes, rules, strict=True)), weights)
        postprocess_rules.write(MODEL / "postprocess.json", tuned)
        write_json(Path("metrics/tune_threshold.json"), scores)
        names = [cache.names[row] for row in rows]
        confidences = np.stack([table.confidences(c) for c in channels], axis=1)
        counts = tuning.count(table, rules)
        validation_table.write(VALIDATION, names, cache.classes, confidences, counts, honest)
        heights = [tuning.landscape(table, c, config) for c in channels]
        by_class = dict(zip(cache.classes, heights, strict=True))
        landscape = Landscape(config.thresholds, config.min_component_areas, by_class)
        validation_table.write_landscape(LANDSCAPE, landscape)
        tracker.summary(scores)
        log_model(tracker, MODEL, cache.image(rows[0]))
    print(f"MLflow runs: {ui_command()}")


if __name__ == "__main__":
    run(main)
