"""Clones of this repository with a tiny preset, for tests that run the pipeline itself."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = {
    "n_train: 240": "n_train: 20",
    "n_test: 24": "n_test: 3",
    "height: 256": "height: 64",
    "width: 1600": "width: 100",
    "encoder: tu-tf_efficientnet_lite0": "encoder: tu-resnet10t",
    "encoder_weights: auto": "encoder_weights: null",
    "[128, 64, 32, 16, 16]": "[16, 8, 8], encoder_depth: 3",
    "epochs: auto": "epochs: 3",
    "crop: auto": "crop: [32, 32]",
    "crops_per_image: auto": "crops_per_image: 1",
    "n_folds: 5": "n_folds: 2",
    # pieces of work that are small enough for a kill to fall between them
    "shard_images: 128": "shard_images: 1",
    "part_images: 512": "part_images: 1",
}
OUTPUTS = ["data/annotations.parquet", "data/folds.parquet", "data/predictions.parquet"]
OUTPUTS += ["models/model.safetensors", "models/model.json", "models/postprocess.json"]
OUTPUTS += ["models/model.onnx"]
OUTPUTS += ["submission.csv", "plots/train.csv", "data/cache/manifest.json"]
OUTPUTS += ["data/validation.parquet", "data/landscape.json", "reports/index.html"]


def environment(**changes: str) -> dict[str, str]:
    """Return a command's variables: this interpreter's tools first, no traces of other runs."""
    ours = ("DVC_", "MLFLOW_", "STEELSEG_")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    variables["OMP_NUM_THREADS"] = "1"  # how a busy machine shares out a sum may round it
    return variables | {"PYTHONPATH": "src"} | changes


def run(folder: Path, *command: str, fails: bool = False, **variables: str) -> str:
    """Run a command in a clone."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert (result.returncode != 0) == fails, result.stdout + result.stderr
    return result.stdout + result.stderr


def clone(folder: Path) -> Path:
    """Copy what git would clone, set the tiny preset, and commit it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in run(ROOT, *listed).splitlines():
        if (ROOT / name).is_file() and name not in {"dvc.lock"}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    for usual, tiny in TINY.items():
        assert usual in params, usual
        params = params.replace(usual, tiny)
    (folder / "params.yaml").write_text(params)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.email", "test@example.invalid")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "tiny")
    return folder


def finished(folder: Path, *command: str, store: Path | None = None, **variables: str) -> Path:
    """Make a clone in which a command has run the whole pipeline, and commit the results.

    `store` is an empty one of MLflow to copy, since making one takes seconds.
    """
    clone(folder)
    if store:
        shutil.copy(store, folder / "mlflow.db")
    output = run(folder, *command, **variables)
    assert stages_run(output)[-1] == "report"
    assert "Traceback" not in output
    assert "Warning" not in output
    run(folder, "git", "add", "-A")  # experiments in temporary folders see what git knows
    run(folder, "git", "commit", "-qm", "results")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in OUTPUTS}


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)
