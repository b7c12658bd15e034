"""`python -m benchmarks`: measure every row, print the table, and write it as JSON."""

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import psutil

from benchmarks.inputs import FULL, LARGE, TINY
from benchmarks.table import Row, as_markdown, write_json
from steelseg.core.device import has_gpu, n_cores

GROUPS = (
    *("loading", "epoch_metrics", "run_lengths", "postprocessing", "threshold_search"),
    *("training_step", "prediction", "startup", "scaling", "stages"),
)
RESULTS = Path(__file__).parent / "results.json"
NO_GPU = (
    "error: `make bench-gpu` needs a GPU that PyTorch can use, and there is none: nothing was "
    "measured. `make bench` measures the CPU; ARGS='--tiny' only shows, on the CPU, that it runs"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen groups, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="these rows")
    parser.add_argument("--tiny", action="store_true", help="tiny inputs, to see that it runs")
    parser.add_argument("--gpu", action="store_true", help="the rows of a GPU instead")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args(arguments)
    if options.gpu and not (has_gpu() or options.tiny):
        sys.exit(NO_GPU)
    scale = TINY if options.tiny else LARGE if options.gpu else FULL
    rows: list[Row] = []
    for group in ["gpu"] if options.gpu else options.only:
        print(f"measuring {group} ...", flush=True)
        for row in import_module(f"benchmarks.{group}").rows(scale):
            rows.append(row)
            write_json(options.out, rows, machine())  # so that a failure costs no row before it
    print(f"on {machine()}:\n\n{as_markdown(rows)}")


def machine() -> str:
    """Describe the machine that this was measured on, and its GPU if it has one."""
    memory = psutil.virtual_memory().total / 2**30
    rest = f"{n_cores()} CPU cores, {memory:.0f} GiB, Python {platform.python_version()}"
    if not has_gpu():
        return rest
    import torch

    card = torch.cuda.get_device_properties(0)
    versions = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"{card.name} ({card.total_memory / 2**30:.0f} GiB), {versions}, {rest}"


if __name__ == "__main__":
    main()
