"""The training losses, by name or as a weighted sum of names."""

from collections.abc import Callable, Mapping

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from steelseg.errors import BadInput
from steelseg.params import nearest

MULTILABEL = "multilabel"

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "bce": nn.BCEWithLogitsLoss,
    "dice": lambda: smp.losses.DiceLoss(MULTILABEL),
    "focal": lambda: smp.losses.FocalLoss(MULTILABEL),
    "lovasz": lambda: smp.losses.LovaszLoss(MULTILABEL),
    "tversky": lambda: smp.losses.TverskyLoss(MULTILABEL, alpha=0.3, beta=0.7),
}


class WeightedLoss(nn.Module):
    """A weighted sum of losses on logits and masks, both (B, C, H, W) float; a scalar.

    smp's Dice and Tversky take a class over the whole batch and count it as 0 when no image of the
    batch shows it, so that only `bce`, `focal` and `lovasz` punish false alarms on clean batches.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Build every loss of `weights`, refusing an unknown name."""
        super().__init__()
        self.weights = dict(weights)
        self.parts = nn.ModuleDict({name: _build(name) for name in weights})

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the weighted sum, a scalar."""
        terms = [self.weights[name] * loss(logits, masks) for name, loss in self.parts.items()]
        return torch.stack(terms).sum()


def build_loss(loss: str | Mapping[str, float]) -> WeightedLoss:
    """Build a loss from its name (`bce`) or from weights by name (`{bce: 0.6, dice: 0.4}`).

    Raises:
        BadInput: a name is unknown, or there is none.
    """
    weights = {loss: 1.0} if isinstance(loss, str) else loss
    if not weights:
        raise BadInput(f"`loss`: expected one of {', '.join(LOSSES)}, but got nothing")
    return WeightedLoss(weights)


def _build(name: str) -> nn.Module:
    if name not in LOSSES:
        known = ", ".join(LOSSES)
        raise BadInput(f"`loss`: expected one of {known}, but got {name!r}{nearest(name, LOSSES)}")
    return LOSSES[name]()
