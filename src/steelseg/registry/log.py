"""Logging of the finished model to MLflow: weights, rules and the code to run them, no pickles.

Each finished model is registered as a version of `steelseg`. Only users choose the champion, with
`python -m steelseg champion`.
"""

import io
import logging
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from steelseg.core.arrays import Pixels
from steelseg.core.classes import ClassInfo
from steelseg.core.pixels import COLOURS, PixelFormat
from steelseg.model.card import read_card
from steelseg.predict.ensemble import files_of
from steelseg.predict.inference import has_export
from steelseg.tracking.tracker import MlflowTracker, Tracker, survived
from steelseg.tune.headline import readable

if TYPE_CHECKING:  # MLflow runs it, so it is a dependency of code that logs it
    from steelseg.registry import served  # noqa: F401

REGISTERED = "steelseg"
NOTE = "mlflow.note.content"  # a run's description, in Markdown
PACKAGE = Path(__file__).parents[1]
REQUIREMENTS = [
    *("mlflow", "numpy", "onnxruntime", "opencv-python-headless", "pandas"),
    *("pillow", "pyarrow", "pydantic", "ruamel.yaml", "scipy"),
]
TORCH_REQUIREMENTS = ["torch", "torchvision", "segmentation-models-pytorch", "safetensors"]


def log_model(
    tracker: Tracker, folders: Sequence[Path], example: Pixels, scores: Mapping[str, float]
) -> None:
    """Log the finished model and its scores to the tracker's run, and register the model.

    Args:
        tracker: of the stage that finished the model; without a run, nothing is logged.
        folders: the model (weights, ONNX export, tuned rules) and the members of its ensemble.
        example: an image of the cache, logged as an example input.
        scores: the numbers to compare models by.
    """
    if not isinstance(tracker, MlflowTracker):
        return
    logged: Any = None
    with survived("did not get the model"):
        logged = _log(tracker.run_id, folders, example)
    text = describe(scores, read_card(folders[0]).named_classes)
    with survived("did not get its description"):
        if text and NOTE not in tracker.client.get_run(tracker.parent_id).data.tags:
            tracker.client.set_tag(tracker.parent_id, NOTE, text)
    # only now: MLflow copies a run's earlier scores to the model, but without their data
    tracker.summary(scores, logged.model_id if logged else None)
    if logged:
        with survived("has the model, but did not register it"):  # the store may have no registry
            register(tracker.client, tracker.run_id, logged.model_uri, text)


def _log(run_id: str, folders: Sequence[Path], example: Pixels) -> Any:
    """Log the model to a run, and return MLflow's info on it."""
    import mlflow
    import pandas as pd

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    file = encode(example, read_card(folders[0]).pixels)
    has_onnx = all(map(has_export, folders))
    packages = REQUIREMENTS if has_onnx else REQUIREMENTS + TORCH_REQUIREMENTS
    with warnings.catch_warnings(), TemporaryDirectory() as temporary:
        warnings.simplefilter("ignore")
        model = _gather(folders, Path(temporary) / "model")
        with mlflow.start_run(run_id=run_id):
            return mlflow.pyfunc.log_model(
                name="model",
                python_model=str(PACKAGE / "registry" / "served.py"),
                artifacts={"model": str(model)},
                code_paths=[str(PACKAGE)],
                signature=_signature(),
                input_example=pd.DataFrame({"image": [file]}),
                pip_requirements=[f"{name}=={version(name)}" for name in packages],
            )


def encode(image: Pixels, pixels: PixelFormat) -> bytes:
    """Return an image of the cache as a file in the data set's format.

    8-bit images with 1 or 3 channels become a JPEG; others a TIFF with one page per channel, in the
    levels of the original files.
    """
    planes = image.reshape(-1, *image.shape[-2:])
    if pixels.depth == 8 and len(planes) in (1, COLOURS):
        return cv2.imencode(".jpg", np.moveaxis(planes, 0, -1)[..., ::-1])[1].tobytes()
    if pixels.depth == 8:
        levels: Any = planes
    else:
        levels = planes / np.float32(pixels.white) * np.float32(pixels.span) + np.float32(
            pixels.low
        )
        levels = levels.round().astype(np.uint16) if pixels.depth == 16 else levels
    first, *others = map(Image.fromarray, levels)
    stream = io.BytesIO()
    first.save(stream, "TIFF", save_all=True, append_images=others)
    return stream.getvalue()


def _gather(folders: Sequence[Path], target: Path) -> Path:
    """Copy the files needed for prediction, and nothing else, into one folder."""
    for name, path in files_of(folders).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    return target


def describe(scores: Mapping[str, float], classes: Sequence[ClassInfo]) -> str:
    """Return the headline figures and the names of classes, if they have any, as Markdown.

    MLflow's lists of metrics show neither an interval beside its figure nor what an id stands for.
    """
    head = ["| on validation images | value | 95% interval |", "|---|---|---|"]
    rows = [f"| {one.label} | {one.value} | {one.interval} |" for one in readable(scores)]
    names = [f"- class {one.id}: {one.name}" for one in classes if one.is_named]
    return "\n\n".join("\n".join(part) for part in (rows and head + rows, names) if part)


def register(client: Any, run_id: str, uri: str, description: str = "") -> str:
    """Register a logged model as the next version, and return the version."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(REGISTERED)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    run = client.get_run(run_id)
    tags = {"experiment": run.info.run_name.rpartition("/")[0]}
    tags |= {name: run.data.tags[name] for name in ("dataset", "fold") if name in run.data.tags}
    if "pair_dice" in run.data.metrics:
        tags["pair_dice"] = f"{run.data.metrics['pair_dice']:.4f}"
    model_id = uri.rpartition("/")[2]
    version = client.create_model_version(
        REGISTERED, uri, run_id, tags, description=description or None, model_id=model_id
    )
    return str(version.version)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    output = [("long", "image"), ("long", "class_id"), ("string", "class_name")]
    output += [("string", "rle"), ("long", "area"), ("double", "confidence")]
    columns: list[Any] = [ColSpec(kind, name) for kind, name in output]
    columns.append(ColSpec("boolean", "alarm", required=False))  # null if the model has no verdicts
    columns.append(ColSpec("double", "area_mm2", required=False))  # null if it has no scale
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema(columns),
    )
