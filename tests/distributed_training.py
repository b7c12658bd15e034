"""A tiny training for `test_distributed.py`, alone, or by torchrun where it is run as a script.

The two processes are forks of torchrun's own, so that PyTorch is imported once.
Its network has no batch-norm, whose statistics would be those of each process's own share.
"""

import hashlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed.run as torchrun
from tiny_training import ROOT, config, network
from torch import nn

from steelseg.core.device import is_first_process
from steelseg.data.cache import Cache
from steelseg.train import loop
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper

FOLDS = np.array([0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])  # five to validate on: no even share
GLOBAL_BATCH = 4
MOVING = 1e-3
STILL = 1e-30  # a learning rate at which the weights stay what they are


def without_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            without_norms(child)


def run(cache: Cache, folder: Path, processes: int, lr: float, killed: bool = False) -> EpochKeeper:
    """Train two epochs; `killed` kills the whole process group after the first."""

    def log_epoch(_: dict[str, float], epoch: int) -> None:
        if killed and epoch == 0:
            os.killpg(0, signal.SIGKILL)

    changes = {"epochs": 2, "crop": [32, 32], "crops_per_image": 2}
    changes |= {"num_workers": 2 if processes > 1 else 0}  # workers draw ahead of the training
    changes |= {"batch_size": GLOBAL_BATCH // processes, "devices": processes, "lr": lr}
    changes |= {"loss": "bce", "scheduler": "constant", "validation_batch_size": 2}
    settings = config(**changes)
    segmenter = network(cache, settings)
    without_norms(segmenter.network)
    data = FoldData(cache, FOLDS, settings)
    return loop.train(segmenter, settings, data, folder, log_epoch)


def main(cache: Path, work: Path, trainings: list[str]) -> None:
    """Train in a process of torchrun; the first one writes what it saw.

    The training `stage` is `stages/train.py`, in the project `work/stage`.
    """
    torch.set_num_threads(1)
    for name in trainings:
        if name == "stage":
            os.chdir(work / name)
            runpy.run_path(str(ROOT / "stages/train.py"), run_name="__main__")
            continue
        lr = STILL if name == "still" else MOVING
        keeper = run(Cache(cache), work / name, 2, lr, killed="killed" in trainings)
        if is_first_process():
            tensors = {key: tensor.contiguous() for key, tensor in keeper.best_weights.items()}
            weights = hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()
            (work / f"{name}.json").write_text(json.dumps([keeper.history, weights]))


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    else:
        forked = ["--run-path", "--start-method", "fork", "--nproc_per_node", "2"]
        torchrun.main([*forked, *sys.argv])
