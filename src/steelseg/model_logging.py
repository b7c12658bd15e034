"""Logging of the finished model to MLflow: weights, rules and the code to run them, unpickled."""

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from steelseg.tracking import MlflowTracker, Tracker

if TYPE_CHECKING:  # MLflow runs it, so it is a dependency of whoever logs it
    from steelseg import served_model  # noqa: F401

PACKAGE = Path(__file__).parent
REQUIREMENTS = [
    *("mlflow", "numpy", "onnxruntime", "opencv-python-headless", "pandas"),
    *("pillow", "pyarrow", "pydantic", "ruamel.yaml"),
]
TORCH_REQUIREMENTS = ["torch", "torchvision", "segmentation-models-pytorch", "safetensors"]


def log_model(tracker: Tracker, model: Path) -> None:
    """Log the folder of the finished model as a pyfunc to the tracker's run, if it has one.

    Args:
        tracker: of the stage that finished the model.
        model: the folder with the weights, the ONNX export and the tuned rules.
    """
    if not isinstance(tracker, MlflowTracker):
        return
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    output = [("long", "image"), ("long", "class_id"), ("string", "rle"), ("long", "area")]
    output += [("double", "confidence")]
    signature = ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema([ColSpec(kind, name) for kind, name in output]),
    )
    has_onnx = (model / "model.onnx").stat().st_size > 0
    packages = REQUIREMENTS if has_onnx else REQUIREMENTS + TORCH_REQUIREMENTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=tracker.run_id):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(PACKAGE / "served_model.py"),
                artifacts={"model": str(model)},
                code_paths=[str(PACKAGE)],
                signature=signature,
                pip_requirements=[f"{name}=={version(name)}" for name in packages],
            )
