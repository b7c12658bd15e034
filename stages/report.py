"""Write a page about the data, the training, the scores, and where the model fails."""

from pathlib import Path

import numpy as np
import pandas as pd

from steelseg import (
    advice,
    data_figures,
    fold_table,
    image_table,
    model_figures,
    postprocess_rules,
    report_page,
    sealed_json,
    validation_table,
)
from steelseg.cache import Cache
from steelseg.ensemble import by_fold, member_folders, out_of_fold_maps
from steelseg.files import read_json, sha256, write_text
from steelseg.inference import InferenceConfig
from steelseg.models import ModelConfig
from steelseg.params import load
from steelseg.report_page import ReportConfig
from steelseg.stage import run
from steelseg.tracking import stage_run
from steelseg.training_config import TrainConfig
from steelseg.views import Probabilities

DATA, MODEL, OUT = Path("data"), Path("models"), Path("reports/index.html")
FOLDS = DATA / "folds.parquet"
STAGES = ["pivot_csv", "stratified_split", "train", "tune_threshold", "predict", "submit"]


def main() -> None:
    """Write reports/index.html, and log it to the experiment's run."""
    config, inference = load(ReportConfig, "report"), load(InferenceConfig)
    network = load(ModelConfig)
    training = TrainConfig(**sealed_json.read_sealed(MODEL / "model.json")["training"])
    cache = Cache(DATA / "cache")
    images = image_table.read(DATA / "annotations.parquet")
    folds = fold_table.fold_numbers(fold_table.read(FOLDS, cache.names, cache.annotations))
    trained_on = np.flatnonzero(folds != training.fold)
    table = validation_table.read(DATA / "validation.parquet")
    landscape = validation_table.read_landscape(DATA / "landscape.json")
    weights = sha256(MODEL / "model.safetensors")
    rules, _, views = postprocess_rules.read(MODEL / "postprocess.json", weights)
    members = member_folders(MODEL, views.ensemble)
    models = by_fold(members, training.fold, cache.identity, sha256(FOLDS))

    def predict(rows: list[int]) -> dict[int, Probabilities]:
        rows_of = {fold: [row for row in rows if folds[row] == fold] for fold in models}
        return dict(out_of_fold_maps(models, rows_of, cache.image, inference, views))

    history = pd.read_csv("plots/train.csv")
    metrics = {stage: read_json(Path(f"metrics/{stage}.json")) for stage in STAGES}
    with stage_run("report") as tracker:
        sections = {
            "config": config,
            "network": network,
            "validated": report_page.validated_on(models, len(table) // len(rules)),
            "metrics": metrics,
            "advice": advice.advise(metrics, history, rules, network.encoder_weights),
            "facts": data_figures.class_facts(images),
            "data_figures": data_figures.data_figures(images),
            "skipped": sealed_json.read_sealed(DATA / "skipped_images.json")["images"],
            "examples": report_page.example_pictures(cache, images, config.examples_per_class),
            "crops": report_page.crop_pictures(cache, trained_on, training, config.crops),
            "curves": model_figures.training_curves(history),
            "class_scores": report_page.class_scores(table, rules),
            "landscapes": model_figures.landscapes(landscape, rules),
            "confidence_figures": model_figures.confidence_figures(table),
            "gallery": report_page.gallery_pictures(
                cache, table, predict, rules, config.gallery_images
            ),
            "submission_figure": data_figures.submission_shares(images, metrics["predict"]),
        }
        write_text(OUT, report_page.render(cache.classes, sections))
        tracker.artifact(OUT)
    print(f"report: {OUT}")


if __name__ == "__main__":
    run(main)
