"""Predict every class of every test image."""

from pathlib import Path

from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.data import image_table
from steelseg.predict import parts as prediction
from steelseg.predict.ensemble import open_ensemble
from steelseg.predict.inference import InferenceConfig, resolve_runtime
from steelseg.predict.parts import PredictConfig
from steelseg.predict.rules import read_rules
from steelseg.predict.submission import PredictionRow, write_predictions
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run

MODEL = Path("models")
IMAGES, RULES = Path("data/test_images.parquet"), MODEL / "postprocess.json"


def main() -> None:
    """Write the predictions, going on from the last finished part of an interrupted run."""
    config, inference = load(PredictConfig, "predict"), load(InferenceConfig)
    images = image_table.read(IMAGES)
    rules = read_rules(RULES, sha256(MODEL / "model.safetensors"))
    folder = Path(config.data_root) / config.dataset / "test_images"
    params = config.model_dump() | inference.model_dump()
    identity = {
        "params": params,
        "runtime": resolve_runtime(inference.runtime),
        "inputs": [sha256(path) for path in (IMAGES, RULES, MODEL / "model.onnx")],
    }
    rows: list[PredictionRow] = []
    with (
        work_folder("predict", identity) as work,
        stage_run("predict", work) as tracker,
        tqdm(desc="predicting", total=len(images), unit="image", disable=None) as bar,
    ):
        tracker.params(params)
        runtime = open_ensemble(MODEL, rules.views, inference.runtime, many=True)
        parts = prediction.predict_parts(
            work,
            images,
            folder,
            runtime,
            rules.by_class,
            config.part_images,
            inference.inference_batch_size,
        )
        for part in parts:
            rows += part
            bar.update(len(part) // len(rules.by_class))
        write_predictions(Path("data/predictions.parquet"), rows)
        report = prediction.report(rows, len(images), list(rules.by_class))
        write_json(Path("metrics/predict.json"), report)
        tracker.metrics(report)


if __name__ == "__main__":
    run(main)
