"""Rejects invalid values in params.yaml before any stage runs.

A stage has already accepted the parameters it last ran with, so they are skipped if dvc.lock has
them. An unchanged file takes milliseconds, and PyTorch is imported only for a changed network.
"""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from steelseg.check.known_params import accepted, changed
from steelseg.core.errors import BadInput
from steelseg.core.params import load, read_yaml

# The configs that each stage loads, the first one from its own section. The check has no outputs
# that could be out of date, so dvc.yaml does not list these modules: they are imported by name.
CONFIGS = {
    "sample_data": ["steelseg.sample.dataset:SampleConfig"],
    "pivot_csv": ["steelseg.data.annotations:PivotConfig"],
    "stratified_split": ["steelseg.data.splitting:SplitConfig"],
    "cache_masks": ["steelseg.data.cache_writer:CacheConfig"],
    "train": ["steelseg.train.auto:TrainParams", "steelseg.model.card:ModelConfig"],
    "export_onnx": ["steelseg.export.onnx:ExportConfig"],
    "tune_threshold": [
        "steelseg.tune.search:TuneConfig",
        "steelseg.predict.inference:InferenceConfig",
        "steelseg.predict.views:ViewsConfig",
    ],
    "predict": ["steelseg.predict.parts:PredictConfig"],
    "submit": ["steelseg.submit.answers:SubmitConfig"],
    "report": ["steelseg.report.config:ReportConfig"],
}
MEMBER = "steelseg.predict.ensemble:find"
TRIAL = "steelseg.train.trial:try_params"
TRIED = (
    *("arch", "encoder", "encoder_weights", "arch_options", "label_head"),
    *("loss", "crop", "batch_size", "devices"),
)
TRIED_OF_TRAIN = ("augment", "finish", "class_weights", "label_smoothing", "sync_batchnorm")


def refuse_bad_values(params: Path, pipeline: Path, lock: Path) -> None:
    """Load every stage's parameters as the stage will, and try out the training setup.

    Args:
        params: params.yaml.
        pipeline: dvc.yaml.
        lock: dvc.lock, which need not exist.

    Raises:
        BadInput: a parameter is unknown, missing, of the wrong type or out of range, or some
            parameters are incompatible.
    """
    document = read_yaml(params)
    known = read_yaml(lock) if lock.is_file() else {}
    suspects = list(changed(read_yaml(pipeline), document, known))
    for stage in suspects:
        for place, config in enumerate(map(resolve_name, CONFIGS.get(stage, []))):
            load(config, stage if place == 0 else None, params)
    _refuse_fold(document, params)
    for name in document["ensemble"]:
        resolve_name(MEMBER)(Path("models"), name)
    if "train" in suspects and _tried(document) != _tried(accepted(known, "train")):
        training, network = map(resolve_name, CONFIGS["train"])
        tried = load(network, None, params), load(training, "train", params)
        resolve_name(TRIAL)(*tried, document["channels"])


def _refuse_fold(document: Mapping[str, Any], params: Path) -> None:
    fold, n_folds = document["fold"], document["stratified_split"]["n_folds"]
    if fold >= n_folds:
        raise BadInput(
            f"{params}: `fold`: expected 0 to {n_folds - 1}, since `stratified_split.n_folds` is "
            f"{n_folds}, but got {fold}"
        )


def _tried(params: Mapping[str, Any]) -> list[Any]:
    """Return the values that a trial depends on."""
    own = params.get("train", {})
    return [params.get(name) for name in TRIED] + [own.get(name) for name in TRIED_OF_TRAIN]
