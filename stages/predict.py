"""Predict all classes of all test images."""

from pathlib import Path

from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.data import image_table
from steelseg.predict import parts
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Model
from steelseg.predict.parts import PredictConfig
from steelseg.predict.predictions import PredictionRow, write_predictions
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run

IMAGES = Path("data/test_images.parquet")


def main() -> None:
    """Write the predictions, resuming after the last finished part of an interrupted run."""
    config, inference = load(PredictConfig, "predict"), load(InferenceConfig)
    images = image_table.read(IMAGES)
    model = Model.open("models", inference=inference)
    folder = Path(config.data_root) / config.dataset / "test_images"
    params = config.model_dump() | inference.model_dump()
    identity = {"params": params, "images": sha256(IMAGES), "model": model.identity}
    rows: list[PredictionRow] = []
    with (
        work_folder("predict", identity) as work,
        stage_run("predict", work) as tracker,
        tqdm(desc="predicting", total=len(images), unit="image", disable=None) as bar,
    ):
        tracker.params(params)
        for part in parts.predict_parts(work, images, folder, model, config.part_images):
            rows += part
            bar.update(len(part) // len(model.classes))
        write_predictions(Path("data/predictions.parquet"), rows)
        report = parts.report(rows, len(images), model.classes)
        write_json(Path("metrics/predict.json"), report)
        tracker.metrics(report)


if __name__ == "__main__":
    run(main)
