"""`make faults`: do every kind of fault to a tiny pipeline, and table what became of it."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clones import clone, hashes, run

from faults.damage import damage_inputs, damage_unfinished
from faults.kills import kill_repros
from faults.outcome import Outcome, Trial, is_clean, table
from faults.surroundings import full_disk, store_locked, store_out_of_reach
from faults.workplace import Workplace

WRITERS = ("stratified_split", "cache_masks", "export_onnx", "predict", "train")
PARTS = ("kills", "damage", "unfinished", "disk", "store")


def main() -> None:
    """Print a line for each fault and the table; exits with 1 if any was lost or silently wrong."""
    options = _options()
    begin, trials = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="steelseg-faults-") as name:
        for trial in _all(Path(name), options):
            trials.append(trial)
            seconds = time.monotonic() - begin
            print(
                f"{seconds:5.0f} s  {trial.kind}: {trial.what}: {trial.outcome.value}", flush=True
            )
            if trial.outcome in {Outcome.LOST, Outcome.WRONG}:
                print(trial.said)
    print(f"\nseed {options.seed}\n{table(trials)}")
    sys.exit(not is_clean(trials))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of moments, signals and places")
    parser.add_argument("--kills", type=int, default=20, help="kills of dvc repro")
    parser.add_argument("--damages", type=int, default=26, help="damaged inputs of single stages")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    return parser.parse_args()


def _all(root: Path, options: argparse.Namespace) -> Iterator[Trial]:
    rng = random.Random(options.seed)
    fresh = clone(root / "fresh")  # once, since the repository may change meanwhile
    finished, begin = shutil.copytree(fresh, root / "finished"), time.monotonic()
    run(finished, "dvc", "repro")
    seconds = time.monotonic() - begin
    print(f"{seconds:5.0f} s  the undisturbed run", flush=True)
    if "kills" in options.only:
        clones = (shutil.copytree(fresh, root / f"clone-{i}") for i in range(options.kills + 1))
        # a half, so that there is more than one kill on the way to an end
        yield from kill_repros(clones, hashes(finished), seconds / 2, options.kills, rng)
    place = Workplace(finished, root / "place")
    if "damage" in options.only:
        yield from damage_inputs(place, options.damages, rng)
    if "unfinished" in options.only:
        yield from damage_unfinished(place, rng)
    if "disk" in options.only:
        yield from full_disk(place, WRITERS)
    if "store" in options.only:
        yield from store_out_of_reach(place)
        yield from store_locked(place)


if __name__ == "__main__":
    main()
