"""The training losses, by name or as a weighted sum of names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from steelseg.core.errors import BadInput
from steelseg.core.params import nearest
from steelseg.train.config import loss_weights
from steelseg.train.ignored import NOWHERE

MULTILABEL = "multilabel"
IGNORED = -1  # in place of a class


class SmoothedBce(nn.Module):
    """Cross-entropy with smoothed masks, which is 0 for ignored pixels.

    The other losses need no special case: a logit of `NOWHERE` and no class give a loss of 0.
    """

    def __init__(self, **options: Any) -> None:
        """Pass the options to smp."""
        super().__init__()
        self.bce = smp.losses.SoftBCEWithLogitsLoss(ignore_index=IGNORED, **options)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the mean over all pixels, a scalar."""
        loss: Tensor = self.bce(logits, masks.masked_fill(logits == NOWHERE, IGNORED))
        return loss


def bce(**options: Any) -> nn.Module:
    """Build the cross-entropy, a mean over all pixels."""
    if "smooth_factor" in options:
        return SmoothedBce(**options)
    plain: nn.Module = smp.losses.SoftBCEWithLogitsLoss(ignore_index=None, **options)
    return plain


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "bce": bce,
    "dice": lambda: smp.losses.DiceLoss(MULTILABEL),
    "focal": lambda: smp.losses.FocalLoss(MULTILABEL),
    "lovasz": lambda: smp.losses.LovaszLoss(MULTILABEL),
    "tversky": lambda: smp.losses.TverskyLoss(MULTILABEL, alpha=0.3, beta=0.7),
}


class WeightedLoss(nn.Module):
    """A weighted sum of losses on logits and masks, both (B, C, H, W) float; a scalar.

    Ignored pixels (see `steelseg.train.ignored`) add nothing; `bce` and `focal` are means over all
    pixels, so that no pixel weighs more because others are ignored.

    smp's Dice and Tversky are computed per class over the whole batch, and are 0 for a class that
    no image of the batch shows, so only `bce`, `focal` and `lovasz` penalise false alarms on clean
    batches.
    """

    def __init__(self, weights: Mapping[str, float], **bce_options: Any) -> None:
        """Build every loss of `weights`, refusing an unknown name."""
        super().__init__()
        self.weights = dict(weights)
        options = {"bce": bce_options}
        self.parts = nn.ModuleDict({n: _build(n, options.get(n, {})) for n in weights})

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the weighted sum, a scalar, in 32 bits even under autocast.

        In half precision Dice and Tversky are NaN, and many of focal's gradients are 0.
        """
        with torch.autocast(logits.device.type, enabled=False):
            pair = logits.float(), masks.float()
            terms = [self.weights[name] * loss(*pair) for name, loss in self.parts.items()]
            return torch.stack(terms).sum()

    def of_each(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of each image: (B,); on a GPU with the kernel launches of one."""
        # on a CPU, a batch would be summed in another order; smp's Lovasz does not support vmap
        if logits.device.type == "cpu" or "lovasz" in self.weights:
            pairs = zip(logits, masks, strict=True)
            return torch.stack([self(one[None], mask[None]) for one, mask in pairs])
        return self.of_each_at_once(logits, masks)

    def of_each_at_once(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of each image as `of_each` does on a GPU: (B,)."""
        losses: Tensor = torch.vmap(self)(logits[:, None], masks[:, None])  # (B, 1, C, H, W)
        return losses


def build_loss(
    loss: str | Mapping[str, float],
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> WeightedLoss:
    """Build a loss from its name (`bce`) or from weights by name (`{bce: 0.6, dice: 0.4}`).

    Args:
        loss: the name or the weights.
        class_weights: factors of the classes in `bce`, in channel order; None for 1 each.
        label_smoothing: `bce` uses this value and 1 minus it as targets instead of 0 and 1.

    Raises:
        BadInput: a name is unknown or missing, or `bce` has options but no weight.
    """
    weights = loss_weights(loss)
    if not weights:
        raise BadInput(f"`loss`: expected one of {', '.join(LOSSES)}, but got nothing")
    options: dict[str, Any] = {}
    if class_weights is not None:
        options["weight"] = torch.tensor(class_weights)[:, None, None]  # (C, 1, 1)
    if label_smoothing:
        options["smooth_factor"] = label_smoothing
    if options and "bce" not in weights:
        raise BadInput("`class_weights` and `label_smoothing` apply to `bce`, which `loss` lacks")
    return WeightedLoss(weights, **options)


def _build(name: str, options: Mapping[str, Any]) -> nn.Module:
    if name not in LOSSES:
        known = ", ".join(LOSSES)
        raise BadInput(f"`loss`: expected one of {known}, but got {name!r}{nearest(name, LOSSES)}")
    return LOSSES[name](**options)
