"""The LightningModule: training and validation steps, and the scores of an epoch."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.data.cache import Cache
from steelseg.model.network import Segmenter, gate
from steelseg.train.batch import Batch
from steelseg.train.checkpoint_io import random_state, set_random_state
from steelseg.train.config import TrainConfig
from steelseg.train.ignored import blended_masks, without_ignored
from steelseg.train.losses import build_loss
from steelseg.train.mixing import Blend, blend_images, draw_blend
from steelseg.train.totals import EpochTotals, false_pixels, pixel_counts

GPU_CHECK_EVERY = 50  # steps; reading a loss from a GPU stalls it
THRESHOLDS = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)  # metrics use the first


def cut_back(logits: Tensor, batch: Batch) -> Tensor:
    """Crop logits of padded images to the size of their masks: (B, C, h, w)."""
    return logits[..., : batch.masks.shape[-2], : batch.masks.shape[-1]]


class SegmentationTask(L.LightningModule):
    """Trains a segmenter; `epoch_scores` has the last epoch's metrics by name."""

    def __init__(self, segmenter: Segmenter, config: TrainConfig, cache: Cache) -> None:
        """Train `segmenter` on images of `cache`."""
        super().__init__()
        self.segmenter = segmenter
        self.config = config
        self.classes = cache.classes
        self.names = cache.names
        self.n_images = len(cache)
        self.n_pixels = math.prod(cache.typical_size_hw)
        _check_class_weights(config, cache.class_infos)
        self.loss = build_loss(config.loss, config.class_weights, config.label_smoothing)
        self.average = None
        if config.ema_decay is not None:
            self.average = ModelEmaV3(segmenter, config.ema_decay, use_warmup=True)
            self.average.requires_grad_(requires_grad=False)
        self.epoch_scores: dict[str, float] = {}
        self._plateau: ReduceLROnPlateau | None = None
        self._training = self._validation = EpochTotals()
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []
        self._averaged_step = 0

    def configure_optimizers(self) -> Any:
        """Build the optimizer and, for schedules that run by steps, the scheduler."""
        kind = {"adam": Adam, "adamw": AdamW}[self.config.optimizer]
        groups = self._parameter_groups()
        optimizer = kind(groups, lr=self.config.lr, weight_decay=self.config.weight_decay)
        if self.config.finish:
            steps = self._data().total_steps()
        else:
            steps = int(self.trainer.estimated_stepping_batches)
        match self.config.scheduler:
            case "plateau":
                # stepped below: Lightning would save the checkpoint before the step
                patience = self.config.plateau_patience
                self._plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=patience)
                return optimizer
            case "cosine":
                scheduler: Any = CosineAnnealingLR(optimizer, T_max=steps)
            case "one_cycle":
                highest = [group["lr"] for group in groups]
                scheduler = OneCycleLR(optimizer, max_lr=highest, total_steps=steps)
            case "constant":
                return optimizer
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    @property
    def judged(self) -> Segmenter:
        """The segmenter to validate and keep: the trained one, or its moving average."""
        if self.average is None:
            return self.segmenter
        average: Segmenter = self.average.module
        return average

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return pixel logits, cropped to the masks' size (B, C, h, w), and label logits."""
        logits, label_logits = self.segmenter.heads(batch.images)
        return cut_back(logits, batch), label_logits

    def on_train_epoch_start(self) -> None:
        """Reset the totals, and freeze or unfreeze the encoder."""
        self._training = EpochTotals()
        if self.current_epoch < self.config.freeze_encoder_epochs:
            self.segmenter.network.freeze_encoder()  # type: ignore[operator]
        elif self.config.freeze_encoder_epochs:
            self.segmenter.network.unfreeze_encoder()  # type: ignore[operator]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch."""
        blend = self._blend(len(batch.rows), batch_index)
        images = blend_images(batch.images, blend) if blend else batch.images
        logits, label_logits = self(batch._replace(images=images))
        masks = batch.masks
        if blend:
            masks, others = blended_masks(masks, blend, len(self.classes))
        loss = self._loss(logits, label_logits, masks)
        if blend:
            of_others = self._loss(logits, label_logits, others)
            loss = blend.share * loss + (1 - blend.share) * of_others
        losses = loss.detach().expand(len(batch.rows))
        answer = gate(logits, label_logits, self.segmenter.label_head).detach()
        counts = pixel_counts(*without_ignored(answer, masks))
        self._training.add(losses, counts, batch.rows)
        self._unchecked.append((batch_index, loss.detach(), batch.rows))
        if self.device.type == "cpu" or len(self._unchecked) == GPU_CHECK_EVERY:
            self._refuse_lost_loss()
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Update the moving average of the weights after each step, not each accumulated batch."""
        if self.average is not None and self.trainer.global_step > self._averaged_step:
            self._averaged_step = self.trainer.global_step
            self.average.update(self.segmenter, step=self._averaged_step)

    def on_validation_epoch_start(self) -> None:
        """Reset the totals, and copy the first process's batch-norm statistics to the others."""
        self._training.stop()
        self._validation = EpochTotals()
        if dist.is_initialized():
            for buffer in self.judged.buffers():
                dist.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count pixels and losses of a batch of whole images."""
        logits = cut_back(self.judged(batch.images), batch).float()
        logits, masks = without_ignored(logits, batch.masks)
        losses = self.loss.of_each(logits, masks)
        self._validation.add(losses, pixel_counts(logits, masks, THRESHOLDS), batch.rows)

    def on_validation_epoch_end(self) -> None:
        """Wait for the device, so that the time measured is that of the work."""
        self._validation.stop()

    def on_train_epoch_end(self) -> None:
        """Summarise the epoch; runs after the validation and before the checkpoint."""
        self._refuse_lost_loss()
        gathered = self._training.gather()
        training = gathered.summarise(self.classes, self.n_pixels)
        if self.config.hard_negatives:
            self._data().false_pixels = false_pixels(gathered, self.n_images)
        validation = self.validation_scores()
        scores = {f"train_{k}": v for k, v in training.items()}
        scores |= {f"val_{k}": v for k, v in validation.items()}
        self.epoch_scores = scores | {"lr": self._optimizer().param_groups[0]["lr"]}
        if self._plateau is not None:
            self._plateau.step(validation["loss"])

    def validation_scores(self) -> dict[str, float]:
        """Compute the metrics of the last validation, over the images of all processes."""
        return self._validation.gather().summarise(self.classes, self.n_pixels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out: random generators and the plateau scheduler."""
        checkpoint["random_state"] = random_state()
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the checkpoint's extras until training starts, when the schedulers exist."""
        self._restored = checkpoint

    def on_train_start(self) -> None:
        """Restore what `on_save_checkpoint` added."""
        restored = getattr(self, "_restored", None)
        if restored is None:
            return
        set_random_state(restored["random_state"])
        self._averaged_step = self.trainer.global_step
        if self._plateau is not None:
            self._plateau.load_state_dict(restored["plateau"])

    def _loss(self, logits: Tensor, label_logits: Tensor | None, masks: Tensor) -> Tensor:
        logits, masks = without_ignored(logits, masks)
        loss: Tensor = self.loss(logits, masks)
        if label_logits is None:
            return loss
        shown = masks.amax(dim=(-2, -1)).float()
        of_labels = binary_cross_entropy_with_logits(label_logits.float(), shown)
        return loss + self.config.label_loss_weight * of_labels

    def _blend(self, n_images: int, batch_index: int) -> Blend | None:
        """Draw the mixup of a batch, if any, from the seed and the batch's position only."""
        if not self.config.mixup:
            return None
        place = (self.config.seed, self.current_epoch, batch_index, self.global_rank)
        return draw_blend(np.random.default_rng(place), self.config.mixup, n_images)

    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Group the parameters by learning rate, the reported one first."""
        if self.config.encoder_lr_factor == 1:
            return [{"params": list(self.segmenter.parameters()), "lr": self.config.lr}]
        encoder = list(self.segmenter.network.encoder.parameters())  # type: ignore[union-attr]
        own = {id(parameter) for parameter in encoder}
        others = [p for p in self.segmenter.parameters() if id(p) not in own]
        encoder_lr = self.config.lr * self.config.encoder_lr_factor
        return [{"params": others, "lr": self.config.lr}, {"params": encoder, "lr": encoder_lr}]

    def _optimizer(self) -> Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def _refuse_lost_loss(self) -> None:
        if not self._unchecked:
            return
        finite = torch.stack([loss for _, loss, _ in self._unchecked]).isfinite().tolist()
        for is_finite, (batch, loss, rows) in zip(finite, self._unchecked, strict=True):
            if not is_finite:
                images = ", ".join(self.names[int(row)] for row in rows)
                raise SteelsegError(
                    f"the loss became {float(loss)} in epoch {self.current_epoch}, batch {batch} "
                    f"({images}). The weights of the last finished epoch are kept; try a lower "
                    "`lr`, or `train.precision: 32-true`"
                )
        self._unchecked.clear()


def _check_class_weights(config: TrainConfig, classes: Sequence[ClassInfo]) -> None:
    if config.class_weights is not None and len(config.class_weights) != len(classes):
        raise BadInput(
            f"`class_weights`: expected {len(classes)}, one for each of the classes "
            f"{', '.join(one.label for one in classes)}, but got {len(config.class_weights)}"
        )
