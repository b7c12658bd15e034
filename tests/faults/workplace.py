"""A copy of a finished pipeline in which single stages run, with something wrong."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from faults.outcome import Trial, judge
from faults.processes import Ended, finish, start

OUTS = {
    "stratified_split": ["data/folds.parquet"],
    "cache_masks": ["data/cache/manifest.json"],
    "train": ["models/model.safetensors", "models/model.json"],
    "export_onnx": ["models/model.onnx", "models/model.sha256"],
    "tune_threshold": ["models/postprocess.json", "data/validation.parquet"],
    "predict": ["data/predictions.parquet"],
    "submit": ["submission.csv"],
    "report": ["reports/index.html"],
}
Fault = Callable[[Path], None]


class Workplace:
    """Runs stages in `folder`, which `restore` makes again what `finished` is."""

    def __init__(self, finished: Path, folder: Path) -> None:
        """Copy a finished clone, without what DVC keeps of it."""
        self.finished, self.folder = finished, folder
        leave_out = shutil.ignore_patterns(
            ".dvc", ".git", "mlflow.db*", ".mlflow.lock", "mlartifacts"
        )
        shutil.copytree(finished, folder, ignore=leave_out)

    def restore(self) -> None:
        """Undo a fault and what the stages wrote."""
        for name in ("data", "models", ".checkpoints", "submission.csv", "reports"):
            place, source = self.folder / name, self.finished / name
            shutil.rmtree(place, ignore_errors=True)
            place.unlink(missing_ok=True)
            if source.is_dir():
                shutil.copytree(source, place)
            elif source.exists():
                shutil.copy(source, place)

    def remove_outs(self, stage: str) -> None:
        """Delete the outputs of a stage, as DVC does before it runs it."""
        for name in OUTS[stage]:
            (self.folder / name).unlink(missing_ok=True)

    def is_sound(self, stage: str, *, succeeded: bool) -> bool:
        """Whether a stage's outputs are the finished ones or, after a failure, are not there."""
        own, wanted = (_digests(f, OUTS[stage]) for f in (self.folder, self.finished))
        return (
            own == wanted
            if succeeded
            else all(o in (None, w) for o, w in zip(own, wanted, strict=True))
        )

    def try_fault(
        self,
        kind: str,
        what: str,
        stage: str,
        fault: Fault,
        command: Iterable[str] = (),
        **variables: str,
    ) -> Trial:
        """Do a fault to the folder, run a stage, and judge how that ended.

        `command` goes before the interpreter; `variables` are set in the environment.
        """
        self.remove_outs(stage)
        fault(self.folder)
        ended = self.run(stage, command, **variables)
        sound = self.is_sound(stage, succeeded=ended.returncode == 0)
        outcome = judge(ended.returncode, ended.output, sound=sound)
        self.restore()
        return Trial(kind, f"{what}, then {stage}", outcome, ended.output[-600:])

    def run(self, stage: str, command: Iterable[str] = (), **variables: str) -> Ended:
        """Run a stage's script, without tracking unless the variables switch it on."""
        variables = {"STEELSEG_TRACKING": "off"} | variables
        whole = [*command, sys.executable, f"stages/{stage}.py"]
        log = self.folder.with_suffix(".log")
        return finish(start(self.folder, whole, log, **variables), log)


def _digests(folder: Path, names: Iterable[str]) -> list[str | None]:
    return [
        hashlib.sha256((folder / n).read_bytes()).hexdigest() if (folder / n).exists() else None
        for n in names
    ]
