"""Keeps the history, the best weights and the checkpoints of a training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from tqdm import tqdm

from steelseg.core.errors import SteelsegError
from steelseg.core.files import SEAL, is_sealed
from steelseg.train.config import TrainConfig
from steelseg.train.task import SegmentationTask
from steelseg.train.totals import validation_scores

KEPT_CHECKPOINTS = 2
LOWER_IS_BETTER = frozenset({"loss"})

LogEpoch = Callable[[dict[str, float], int], None]
Weights = dict[str, Tensor]


class EpochKeeper(Checkpoint):
    """Keeps the history and the best weights, and writes a checkpoint after every epoch.

    The best weights are part of the checkpoint, so that one atomic file has the whole state.
    """

    def __init__(self, folder: Path, config: TrainConfig, log_epoch: LogEpoch) -> None:
        """Write checkpoints into `folder`; `log_epoch` receives each epoch's scores.

        On resuming it receives earlier epochs again, since it may have missed the last one.
        """
        self.folder = folder
        self.select_by = config.select_by
        self.epochs = config.epochs
        self.log_epoch = log_epoch
        self.average_best = config.average_best
        self.history: list[dict[str, float]] = []
        self.best: dict[int, Weights] = {}  # by epoch, the best first
        self.kept_scores: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed training needs."""
        return {
            "history": self.history,
            "best": self.best,
        }

    @property
    def best_epoch(self) -> int:
        """The best epoch so far, the first of equals; -1 before any."""
        return next(iter(self.best), -1)

    @property
    def best_weights(self) -> Weights:
        """The weights to keep: those of the best epoch, or the mean of the best epochs'."""
        return mean_weights(list(self.best.values()))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted training."""
        self.history = state_dict["history"]
        self.best = state_dict["best"]
        self.kept_scores = validation_scores(self.history[self.best_epoch])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that all processes resume from the same epoch; across nodes a folder may lag.

        Raises:
            SteelsegError: they do not.
        """
        path = trainer.ckpt_path
        number = int(Path(path).stem.rpartition("-")[2]) if path else -1
        device = trainer.strategy.root_device  # nccl gathers there; the module is not yet
        numbers = trainer.strategy.all_gather(torch.tensor(number, device=device))
        if (numbers != number).any():
            raise SteelsegError(
                f"the processes found different checkpoints in {self.folder}: is it shared "
                "between nodes, and used by no other training?"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the epochs before an interruption."""
        if trainer.is_global_zero:
            for scores in self.history:
                self.log_epoch(scores, int(scores["epoch"]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the scores, keep the weights if they are the best so far, and save."""
        assert isinstance(pl_module, SegmentationTask)
        epoch = trainer.current_epoch
        self.history.append({"epoch": epoch, **pl_module.epoch_scores})
        ranking = sorted([*self.best, epoch], key=self._score, reverse=True)  # the first of equals
        kept = ranking[: self.average_best]
        if epoch in kept:
            weights = pl_module.judged.network.state_dict()
            self.best[epoch] = {k: v.detach().to("cpu", copy=True) for k, v in weights.items()}
        self.best = {epoch: self.best[epoch] for epoch in kept}
        self.kept_scores = validation_scores(self.history[self.best_epoch])
        path = self.folder / f"epoch-{epoch:04d}.safetensors"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            _drop_old(self.folder)
            self.log_epoch(self.history[-1], epoch)
            tqdm.write(_describe(self.history[-1], self.epochs))

    def _score(self, epoch: int) -> float:
        if "val_positive_dice" not in self.history[epoch]:
            return epoch  # no validation image shows a defect: the last epoch
        value = self.history[epoch][f"val_{self.select_by}"]
        return -value if self.select_by in LOWER_IS_BETTER else value


def mean_weights(weights: Sequence[Weights]) -> Weights:
    """Average weights and batch-norm statistics; integer buffers are taken from the first."""
    first, *others = weights
    if not others:
        return first
    return {
        name: torch.stack([of_one[name] for of_one in weights]).mean(dim=0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint of a folder, None if there is none."""
    for path in sorted(folder.glob("epoch-*.safetensors"), reverse=True):
        if is_sealed(path):
            return path
    return None


def _drop_old(folder: Path) -> None:
    for path in sorted(folder.glob("epoch-*.safetensors"))[:-KEPT_CHECKPOINTS]:
        path.unlink()
        path.with_suffix(SEAL).unlink(missing_ok=True)


def _describe(scores: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {int(scores['epoch']) + 1}/{epochs}: "
        f"loss {scores['train_loss']:.4f} (validation {scores['val_loss']:.4f}), "
        f"pair-Dice {scores['val_pair_dice']:.4f} "
        f"(tuned {scores['val_tuned_pair_dice']:.4f}, "
        f"all-empty {scores['val_all_empty_pair_dice']:.4f})"
    )
