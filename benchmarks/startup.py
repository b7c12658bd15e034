"""Start-up: a `dvc repro` that finds nothing to do, and what each stage imports."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.inputs import ROOT, Scale, data_set
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.core.params import read_yaml

HEAVY = ("torch", "mlflow")
IMPORT = "import runpy, sys; runpy.run_path(sys.argv[1])"  # its main is for __main__ alone
PROBE = f"{IMPORT}; print(*(name for name in {HEAVY!r} if name in sys.modules))"


def rows(scale: Scale) -> Iterator[Row]:
    """Wall times of whole processes."""
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))[: scale.n_stages]
    ways = {stage: lambda s=stage: python(IMPORT, f"stages/{s}.py") for stage in stages}
    times = in_turns(ways | {"torch": lambda: python("import torch")}, scale.rounds)
    for stage in stages:
        heavy = python(PROBE, f"stages/{stage}.py").split()
        what = f"imports of {stage} ({' and '.join(heavy) or 'neither torch nor mlflow'})"
        yield Row(what, times[stage], "import torch", times["torch"])
    if scale.n_stages is None:
        yield from cached_repro(scale)


def cached_repro(scale: Scale) -> Iterator[Row]:
    """Time `dvc repro` in a clone whose outputs are there, the later ones as stand-ins."""
    with tempfile.TemporaryDirectory() as temporary, data_set(scale) as data:
        clone = Path(temporary) / "clone"
        command("git", "clone", "--quiet", str(ROOT), str(clone), cwd=ROOT)
        shutil.copytree(data.folder, clone / "data/raw/sample")
        for out in outputs(read_yaml(clone / "dvc.yaml")):
            stand_in(clone / out)
        command("dvc", "commit", "--force", "--quiet", cwd=clone)
        assert "Running stage" not in command("dvc", "repro", cwd=clone)
        times = in_turns(
            {
                "repro": lambda: command("dvc", "repro", cwd=clone),
                "version": lambda: command("dvc", "--version", cwd=clone),
            },
            scale.rounds,
        )
        yield Row("cached dvc repro", times["repro"], "10 s", 10.0, 1)
        yield Row("cached dvc repro", times["repro"], "dvc --version", times["version"])


def outputs(pipeline: dict[str, Any]) -> Iterator[str]:
    """List what the stages of a dvc.yaml write."""
    for stage in pipeline["stages"].values():
        for out in (*stage.get("outs", ()), *stage.get("metrics", ())):
            yield out if isinstance(out, str) else next(iter(out))


def stand_in(path: Path) -> None:
    """Write something in the place of an output that is not there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text(path.name)
    else:
        path.mkdir()
        (path / "manifest.json").write_text(path.name)


def python(code: str, *arguments: str) -> str:
    """Run code in an interpreter of its own, as a stage does."""
    return command(sys.executable, "-c", code, *arguments, cwd=ROOT)


def command(*words: str, cwd: Path) -> str:
    """Run a command to its end, with this repository's code in the path: what it prints."""
    environment = os.environ | {"PYTHONPATH": "src"}
    result = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(words)}: {result.stdout}{result.stderr}")
    return result.stdout
