"""`python -m benchmarks`: measure every row, print the table, and write it as JSON."""

import argparse
import platform
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import psutil

from benchmarks.inputs import FULL, TINY
from benchmarks.table import Row, as_markdown, write_json
from steelseg.core.device import has_gpu

GROUPS = (
    *("loading", "epoch_metrics", "run_lengths", "postprocessing", "threshold_search"),
    *("training_step", "prediction", "startup", "scaling"),
)
RESULTS = Path(__file__).parent / "results.json"
GPU_IMAGES = 512


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen groups, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="these rows")
    parser.add_argument("--tiny", action="store_true", help="tiny inputs, to see that it runs")
    parser.add_argument("--gpu", action="store_true", help="the rows of a GPU instead")
    parser.add_argument("--images", type=int, default=GPU_IMAGES, help="images of the GPU's epoch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args(arguments)
    if options.gpu and not has_gpu():
        print("no GPU here: nothing measured (`make bench` measures the CPU)")
        return
    scale = TINY if options.tiny else FULL
    if options.gpu:
        scale = scale._replace(n_images=options.images)
    rows: list[Row] = []
    for group in ["gpu"] if options.gpu else options.only:
        print(f"measuring {group} ...", flush=True)
        rows += import_module(f"benchmarks.{group}").rows(scale)
        write_json(options.out, rows, machine())  # so that a failure costs one group, not all
    print(as_markdown(rows))


def machine() -> str:
    """Describe the machine that this was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} CPU cores, {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
