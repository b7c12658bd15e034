"""Write a page on the data, the training, the scores, and where the model fails."""

from functools import partial
from pathlib import Path

from steelseg.core import sealed
from steelseg.core.files import read_metrics, sha256, write_text
from steelseg.core.params import load
from steelseg.data import fold_table, image_table
from steelseg.data.cache import Cache
from steelseg.model.card import ModelConfig
from steelseg.predict.ensemble import by_fold
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Model
from steelseg.report import advice, data_figures, model_figures, page, verdict_figures
from steelseg.report.config import ReportConfig
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run
from steelseg.train.config import TrainConfig
from steelseg.tune import headline, outcome

DATA, MODEL, OUT = Path("data"), Path("models"), Path("reports/index.html")
FOLDS = DATA / "folds.parquet"
STAGES = ["pivot_csv", "stratified_split", "train", "tune_threshold", "predict", "submit"]


def main() -> None:
    """Write reports/index.html and log it to the experiment's run."""
    config, inference = load(ReportConfig, "report"), load(InferenceConfig)
    network = load(ModelConfig)
    model = Model.open(MODEL, inference=inference)
    training = TrainConfig(**model.card.training)
    cache = Cache(DATA / "cache")
    images = image_table.read(DATA / "annotations.parquet")
    folds = fold_table.fold_numbers(fold_table.read(FOLDS, cache.names, cache.annotations))
    trained_on = fold_table.trained_on(folds, training.fold)
    table = outcome.read_validation(DATA / "validation.parquet")
    landscape = outcome.read_landscape(DATA / "landscape.json")
    rules, classes, scale = model.rules.by_class, cache.class_infos, model.rules.mm_per_pixel
    models = by_fold(model.folders, training.fold, cache.identity, sha256(FOLDS))

    verdicts = model.rules.verdicts
    named = dict(zip(images.names, images.groups, strict=True))
    groups = [named[name] for name in table["image"][:: len(rules)]]

    predict = partial(page.out_of_fold_findings, model, models, folds, cache, inference)
    history = model_figures.read_history(Path("plots/train.csv"))
    metrics = {stage: read_metrics(Path(f"metrics/{stage}.json")) for stage in STAGES}
    with stage_run("report") as tracker:
        sections = {
            "config": config,
            "network": network,
            "validated": page.validated_on(models, len(table) // len(rules)),
            "metrics": metrics,
            "headlines": list(headline.readable(metrics["tune_threshold"])),
            "advice": advice.advise(metrics, history, rules, classes, model.card.pretrained),
            "facts": data_figures.class_facts(images),
            "data_figures": data_figures.data_figures(images),
            "skipped": sealed.read_sealed_json(DATA / "skipped_images.json")["images"],
            "examples": page.example_pictures(cache, images, config.examples_per_class),
            "crops": page.crop_pictures(cache, trained_on, training, config.crops),
            "curves": model_figures.training_curves(history),
            "class_scores": page.class_scores(table, rules),
            "confusion": verdict_figures.confusion(table, classes),
            "verdicts": verdict_figures.verdicts(verdicts, classes) if verdicts else None,
            "groups": verdict_figures.worst_groups(
                table, groups, verdicts.chosen.level if verdicts else None
            ),
            "defects": verdict_figures.defects(table, classes, scale),
            "landscapes": model_figures.landscapes(landscape, rules, classes),
            "confidence_figures": model_figures.confidence_figures(table, classes),
            "gallery": page.gallery_pictures(cache, table, predict, config.gallery_images, scale),
            "submission_figure": data_figures.submission_shares(images, metrics["predict"]),
        }
        write_text(OUT, page.render(classes, sections))
        tracker.artifact(OUT)
    print(f"report: {OUT}")


if __name__ == "__main__":
    run(main)
