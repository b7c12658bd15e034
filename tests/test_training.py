"""Training resumes bit-identically, learns, selects its best epoch, and stops at a lost loss."""

import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny_training import FOLDS, ROOT, config, run

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.data.cache import Cache
from steelseg.train import fold_data
from steelseg.train.batch import packed_bytes
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper, newest_checkpoint
from steelseg.train.task import SegmentationTask
from steelseg.train.totals import TIMINGS, EpochTotals, pixel_counts, without_timings

pytestmark = pytest.mark.usefixtures("one_thread")


def timeless(keeper: EpochKeeper) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in keeper.history]


FINISH = {"epochs": 1, "crop": None, "batch_size": 4, "crops_per_image": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": "constant", "ema_decay": 0.9},
        {"scheduler": "plateau", "plateau_patience": 0, "average_best": 2},
        {"scheduler": "cosine", "freeze_encoder_epochs": 2},
        {"scheduler": "one_cycle", "encoder_lr_factor": 0.1},
        {"hard_negatives": 0.5},  # draws by what the epoch before found
        {"finish": FINISH},  # has a loader of its own
        # workers draw ahead of the training
        {"hard_negatives": 0.5, "num_workers": 2},
        {"finish": FINISH, "num_workers": 2},
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    tiny_cache: Cache, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Stopped after the first epoch, it ends with the same history and weights, bit for bit."""
    settings = config(optimizer="adamw", **changes)
    whole = run(tiny_cache, tmp_path / "whole", settings, dropout=0.3)
    with pytest.raises(InterruptedError):
        run(tiny_cache, tmp_path / "parts", settings, stop_after=1, dropout=0.3)
    resumed = run(tiny_cache, tmp_path / "parts", settings, dropout=0.3)
    assert timeless(resumed) == timeless(whole)
    assert len(whole.history) == 3
    assert resumed.best_epoch == whole.best_epoch
    assert without_timings(resumed.kept_scores) == without_timings(whole.kept_scores)
    for name, tensor in whole.best_weights.items():
        assert torch.equal(resumed.best_weights[name], tensor), name


def test_without_a_defect_to_choose_by_the_last_epoch_is_kept(
    tiny_cache: Cache, tmp_path: Path
) -> None:
    """All epochs score 1 then, by whatever is asked for, and the first has learnt least."""
    clean = np.where(np.isin(np.arange(12), [1, 2, 5, 7]), 0, 1)
    for select_by in ("tuned_pair_dice", "pair_dice"):
        settings = config(epochs=2, select_by=select_by)
        keeper = run(tiny_cache, tmp_path / select_by, settings, folds=clean)
        assert keeper.history[0]["val_all_empty_pair_dice"] == 1
        assert keeper.best_epoch == 1


def test_a_damaged_checkpoint_is_passed_over(tiny_cache: Cache, tmp_path: Path) -> None:
    """Training goes on from the one before."""
    run(tiny_cache, tmp_path, config())
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.stem == "epoch-0002"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    before = newest_checkpoint(tmp_path)
    assert before is not None
    assert before.stem == "epoch-0001"


def test_scores_do_not_depend_on_workers_or_validation_batch(
    tiny_cache: Cache, tmp_path: Path
) -> None:
    """Two loader processes give the same history; another validation batch, nearly the same."""
    plain = run(tiny_cache, tmp_path / "a", config(epochs=1))
    workers = run(tiny_cache, tmp_path / "b", config(epochs=1, num_workers=2))
    single = run(tiny_cache, tmp_path / "c", config(epochs=1, validation_batch_size=1))
    assert timeless(workers) == timeless(plain)
    # a convolution over another batch size may round differently
    assert timeless(single)[0] == pytest.approx(timeless(plain)[0], abs=1e-5)


def test_it_learns(tiny_cache: Cache, tmp_path: Path) -> None:
    """White squares and black bars on grey are found after some epochs."""
    settings = config(epochs=25, lr=3e-3, crop_on_defect=0.5, batch_size=2)
    keeper = run(tiny_cache, tmp_path, settings)
    best = keeper.history[keeper.best_epoch]
    assert best["val_all_empty_pair_dice"] == 0.625  # 3 of 8 pairs are not empty
    assert best["val_tuned_pair_dice"] > 0.625 + 0.1  # 0.85 to 0.97 with other seeds


@pytest.mark.parametrize("select_by", ["loss", "pair_dice", "tuned_pair_dice"])
def test_the_best_epoch_is_kept(tiny_cache: Cache, tmp_path: Path, select_by: str) -> None:
    """By the metric it is the highest, by the loss the lowest; of equals the first."""
    keeper = run(tiny_cache, tmp_path, config(epochs=4, select_by=select_by))
    scores = [row[f"val_{select_by}"] for row in keeper.history]
    best = min(scores) if select_by == "loss" else max(scores)
    assert keeper.best_epoch == scores.index(best)


def test_a_lost_loss_names_epoch_batch_and_images(
    tiny_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN stops the training at once, and the last finished epoch's checkpoint is still there."""
    steps = iter(range(99))
    forward = SegmentationTask.forward

    def poisoned(self: SegmentationTask, batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, labels = forward(self, batch)
        return logits * (float("nan") if next(steps) == 3 else 1.0), labels

    monkeypatch.setattr(SegmentationTask, "forward", poisoned)
    with pytest.raises(SteelsegError, match=r"nan in epoch 1, batch 1 \(\d{4}\.png"):
        run(tiny_cache, tmp_path, config())
    assert newest_checkpoint(tmp_path) is not None


FREED = """
import resource, torch
from steelseg.train import loop
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
loop.keep_freed_memory()
print(min(pages() for _ in range(10)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no mallopt")
def test_freed_memory_is_kept() -> None:
    """After a few tensors of 64 MB the next one takes none of its 16,384 pages anew.

    The first ones do, until there is a gap of their size. In a process of its own, since what was
    allocated before decides where gaps are.
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", FREED]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 1000


def test_a_fold_that_does_not_exist_is_refused(tiny_cache: Cache) -> None:
    """The message says which folds there are."""
    with pytest.raises(BadInput, match="expected 0 to 2, but got 5"):
        FoldData(tiny_cache, FOLDS, config(fold=5))


def test_workers_start_though_opencv_has_threads(
    tiny_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To limit OpenCV's threads in a forked worker would wait for threads that are not there."""
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (9, 9), 0)  # starts them
    data = FoldData(tiny_cache, FOLDS, config(num_workers=2))
    monkeypatch.setattr(data, "trainer", SimpleNamespace(global_rank=0, world_size=1))
    loader = data.val_dataloader()
    loader.timeout = 30
    assert len(list(loader)) == 1
    assert cv2.getNumThreads() == 1


MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("on_gpu", "num_workers", "devices", "free", "expected"),
    [
        (False, "auto", 1, 10**4, 0),  # on a CPU the network needs the cores
        (True, "auto", 1, 10**4, 8),
        (True, "auto", 4, 10**4, 4),  # four processes share out 16 cores
        (True, "auto", 1, 64, 4),  # 64 MiB hold 10 batches of 6.0: one is used, and 2 a worker
        (True, "auto", 2, 64, 2),
        (True, "auto", 1, 1, 0),
        (True, 4, 1, 64, 4),
        (False, 2, 1, 10**4, 2),
    ],
)
def test_workers_fit_into_cores_and_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    on_gpu: bool,
    num_workers: Any,
    devices: int,
    free: int,
    expected: int,
) -> None:
    """As many as there is room for; what is less than wanted is said, with what mends it."""
    monkeypatch.setattr(fold_data, "has_gpu", lambda: on_gpu)
    monkeypatch.setattr(fold_data, "n_cores", lambda: 16)
    monkeypatch.setattr(fold_data, "shared_memory", lambda: free * MEBIBYTE)
    settings = config(num_workers=num_workers, devices=devices)
    assert fold_data.n_workers(settings, 64 * packed_bytes((256, 256), 4)) == expected
    assert ("--shm-size" in capsys.readouterr().out) == (free <= 64 and num_workers == "auto")


def test_too_many_workers_for_the_shared_memory_are_refused(
    tiny_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the training, though only its last epochs have batches so large."""
    monkeypatch.setattr(fold_data, "shared_memory", lambda: 64_000)
    finish = FINISH | {"batch_size": 8}
    FoldData(tiny_cache, FOLDS, config(num_workers=2, validation_batch_size=1))
    with pytest.raises(SteelsegError, match=r"`docker run --shm-size=2g`, or set `train\.num_w"):
        FoldData(tiny_cache, FOLDS, config(num_workers=2, validation_batch_size=1, finish=finish))


def test_class_weights_must_be_one_a_class(tiny_cache: Cache, tmp_path: Path) -> None:
    """The message says how many are needed."""
    with pytest.raises(BadInput, match="expected 2, one for each of the classes 1, 2, but got 3"):
        run(tiny_cache, tmp_path, config(loss="bce", class_weights=[1.0, 1.0, 2.0]))


def test_pixel_counts_of_a_hand_made_case() -> None:
    """Counts are exact, at a probability threshold, and empty masks count 0."""
    logits = torch.tensor([[[[2.0, -2.0], [0.5, -0.5]]]])
    masks = torch.tensor([[[[1, 1], [0, 0]]]], dtype=torch.uint8)
    counts = pixel_counts(logits, masks, thresholds=(0.5, 0.8, 0.3))
    assert counts.tolist() == [[[[1, 2, 2], [1, 1, 2], [1, 3, 2]]]]


def test_the_watch_stops_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is given work faster than it does it; what comes after does not count."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: time.sleep(0.05) or tensor)
    totals = EpochTotals()
    totals.add(torch.zeros(1), torch.zeros(1, 1, 1, 3), torch.zeros(1))
    totals.stop()
    time.sleep(0.5)
    assert 0.05 <= totals.gather().seconds < 0.5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixel_counts_are_those_of_a_plain_sum(layout: torch.memory_format) -> None:
    """What counts on the CPU agrees with boolean arithmetic, in any layout, at any threshold."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 2, 20, 30, generator=generator).to(memory_format=layout)
    masks = (torch.rand(3, 2, 20, 30, generator=generator) < 0.3).to(torch.uint8)
    masks[1, 0] = 0
    counts = pixel_counts(logits, masks, (0.5, 0.7))
    for index, level in enumerate((0.0, math.log(0.7 / 0.3))):
        predicted = logits > level
        pixels = [predicted & masks.bool(), predicted, masks.bool()]
        expected = torch.stack([p.sum(dim=(-2, -1)) for p in pixels], dim=-1)
        assert torch.equal(counts[:, :, index], expected)
