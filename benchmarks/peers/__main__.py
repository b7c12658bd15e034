"""Measure a peer: train, predict and score it, add its row to results.json and docs/results.md.

    python -m benchmarks.peers yolo11n-seg --dataset neu-seg --cpu-minutes 30

A peer is installed on first use, into an environment of its own below `benchmarks/peers/.work`.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs import ROOT
from benchmarks.peers import job as jobs
from benchmarks.peers import ours, scoring, table
from benchmarks.peers.project import WORK, encoder_weights, prepare, run
from steelseg.core.errors import SteelsegError
from steelseg.core.files import read_json, write_json
from steelseg.experiments.ablation import insert

THREADS = 2
PAGE = ROOT / "docs" / "results.md"
OURS = "ours"
PEERS = {  # the module of each, and the file of its requirements
    "yolo11n-seg": ("yolo", "yolo"),
    "yolo26n-seg": ("yolo", "yolo"),
    "nnunet": ("nnunet", "nnunet"),
    "smp": ("smp_script", "smp"),
    "notebook": ("notebook", "smp"),
}
KEPT = (
    *("version", "cpu_minutes", "cpu_minutes_all", "ms_per_image", "pair_dice", "pair_dice_low"),
    *("pair_dice_high", "positive_dice", "positive_dice_low", "positive_dice_high"),
    *("all_empty_pair_dice", "pair_dice_by_our_rules"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("row", choices=[*PEERS, OURS])
    parser.add_argument("--dataset", required=True, help="a folder under data/raw")
    parser.add_argument("--cpu-minutes", type=float, default=30, help="of training (default: 30)")
    parser.add_argument("--seed", type=int, default=69)
    help_ = f"a parameter of params.yaml, for the row `{OURS}`"
    parser.add_argument("-S", dest="overrides", action="append", default=[], help=help_)
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # children inherit it
    try:
        figures = measure(options)
    except SteelsegError as error:
        sys.exit(f"error: {error}")
    row = {
        "peer": options.row,
        "dataset": options.dataset,
        "seed": options.seed,
        "budget": options.cpu_minutes,
        "overrides": options.overrides,
        **{name: figures[name] for name in KEPT if name in figures},
    }
    text = table.as_markdown(table.add(row))
    insert(PAGE, "peers", text)
    print(table.as_markdown([row]))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train, predict and score; the files stay below `.work/DATASET`."""
    data = prepare(options.dataset)
    folder = data / f"{options.row}-{options.cpu_minutes:g}-{options.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if options.row == OURS:
        overrides = [f"dataset={options.dataset}", f"seed={options.seed}", *options.overrides]
        return ours.measure(data, folder, 60 * options.cpu_minutes, overrides)
    fixed = {
        "peer": options.row,
        "seed": options.seed,
        "cpu_seconds": 60 * options.cpu_minutes,
        "encoder_weights": encoder_weights(data),
    }
    write_json(folder / "job.json", read_json(data / "files.json") | fixed)
    times = [_call(options.row, action, folder) for action in ("train", "predict")]
    job = jobs.read(folder)
    scores, rules = scoring.score(job)
    print(f"{scoring.submit(job, rules)}: the answers for the test images")
    facts: dict[str, Any] = read_json(folder / "predicted.json")
    used = {"cpu_minutes": times[0] / 60, "cpu_minutes_all": sum(times) / 60}
    return facts | used | scores


def _call(peer: str, action: str, folder: Path) -> float:
    """Run a peer in its environment, and return its processor time in seconds."""
    module, requirements = PEERS[peer]
    python = _environment(requirements)
    caches = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "YOLO_CONFIG_DIR", "TORCH_HOME")
    environment = {
        **{name: str(WORK / "caches") for name in caches},
        "OMP_NUM_THREADS": str(THREADS),
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not spin
        "PYTHONPATH": "",
        "YOLO_OFFLINE": "true",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    words = [str(python), "-m", f"benchmarks.peers.{module}", action, str(folder)]
    return run(words, ROOT, environment)


def _environment(requirements: str) -> Path:
    """Install a peer, unless that is done, and return its interpreter."""
    file = Path(__file__).parent / f"{requirements}.txt"
    folder = WORK / "envs" / requirements
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.is_file() or done.read_text() != file.read_text():
        run(["uv", "venv", "--quiet", "--clear", "--python", "3.11", str(folder)], ROOT, {})
        words = ["uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(file)]
        run(words, ROOT, {})
        shutil.copy(file, done)
    return python


if __name__ == "__main__":
    main()
