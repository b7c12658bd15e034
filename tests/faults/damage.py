"""Files cut short, with flipped bits, or gone."""

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from faults.outcome import Outcome, Trial, judge
from faults.processes import Ended, finish, interrupt, start
from faults.workplace import Fault, Workplace

READ_BY = [
    ("data/annotations.parquet", "stratified_split"),
    ("data/annotations.parquet", "cache_masks"),
    ("data/folds.parquet", "train"),
    ("data/cache/shard-00001.arrow", "train"),
    ("data/cache/manifest.json", "train"),
    ("models/model.safetensors", "export_onnx"),
    ("models/model.json", "export_onnx"),
    ("data/cache/shard-00000.arrow", "tune_threshold"),
    ("models/model.onnx", "tune_threshold"),
    ("models/model.onnx", "predict"),
    ("models/model.sha256", "predict"),
    ("models/postprocess.json", "predict"),
    ("data/test_images.parquet", "predict"),
    ("data/predictions.parquet", "submit"),
]
KINDS = ("cut short", "bit flipped", "removed")


def spoil(path: Path, kind: str, rng: random.Random) -> None:
    """Cut a file short, flip one of its bits, or remove it."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    path.unlink()  # it may be a hard link to another's file, or read-only
    if kind == "cut short":
        path.write_bytes(data[:place])
    elif kind == "bit flipped":
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def damage_inputs(place: Workplace, count: int, rng: random.Random) -> Iterator[Trial]:
    """Spoil `count` inputs of stages, every kind of file and of damage as often as any."""
    cases = [(kind, *pair) for kind in KINDS for pair in READ_BY]
    rng.shuffle(cases)
    for i in range(count):
        kind, name, stage = cases[i % len(cases)]
        yield place.try_fault(f"file {kind}", name, stage, _spoiler(name, kind, rng))


def damage_unfinished(
    place: Workplace, rng: random.Random, stages: tuple[str, ...] = ("cache_masks", "train")
) -> Iterator[Trial]:
    """Kill stages after their first piece of work, spoil what they left, and start them again."""
    kept = {"cache_masks": "cache/shard-*.arrow", "train": "epoch-*.safetensors"}
    kept["predict"] = "part-*.parquet"
    for stage in stages:
        for kind in KINDS:
            piece, ended = _killed(place, stage, kept[stage])
            if piece is not None:
                spoil(piece, kind, rng)
                ended = place.run(stage)
            sound = place.is_sound(stage, succeeded=ended.returncode == 0)
            outcome = judge(ended.returncode, ended.output, sound=sound)
            if outcome is Outcome.REFUSED:
                outcome = Outcome.LOST  # work that can be done again is no reason to stop
            place.restore()
            what = f"{piece.name if piece else 'no piece'} of a killed {stage}"
            yield Trial(f"checkpoint {kind}", what, outcome, ended.output[-600:])


def _killed(place: Workplace, stage: str, pattern: str) -> tuple[Path | None, Ended]:
    place.remove_outs(stage)
    log = place.folder.with_suffix(".log")
    command = [sys.executable, f"stages/{stage}.py"]
    process = start(place.folder, command, log, STEELSEG_TRACKING="off")
    work = place.folder / ".checkpoints"
    interrupt(process, signal.SIGKILL, lambda: any(work.glob(f"{stage}-*/{pattern}")))
    ended = finish(process, log)
    return next(iter(sorted(work.glob(f"{stage}-*/{pattern}"))), None), ended


def _spoiler(name: str, kind: str, rng: random.Random) -> Fault:
    return lambda folder: spoil(folder / name, kind, rng)
