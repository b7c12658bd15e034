"""Ignored regions of training images: excluded from all losses and metrics.

A batch has them as a last mask (B, 1, h, w) after those of the classes. They are removed only here,
before the comparison: the logits of ignored pixels become a constant without gradient, and their
class masks 0.
"""

import torch
from torch import Tensor

from steelseg.train.mixing import Blend

NOWHERE = -8192.0  # a logit of probability 0 in any precision, which half precision can represent


def without_ignored(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Remove ignored pixels from logits (B, C, h, w) and masks; unchanged if there are none.

    Args:
        logits: of the classes.
        masks: (B, C, h, w), or (B, C + 1, h, w) with the ignored pixels last.
    """
    n_classes = logits.shape[1]
    if masks.shape[1] == n_classes:
        return logits, masks
    ignored = masks[:, n_classes:].bool()
    return logits.masked_fill(ignored, NOWHERE), masks[:, :n_classes].masked_fill(ignored, 0)


def blended_masks(masks: Tensor, blend: Blend, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return the masks of a mixup's own images and of its other images: (B, K, h, w) each.

    Pixels ignored in either image are ignored in the blend, which shows both.
    """
    others = masks[blend.others]
    if masks.shape[1] == n_classes:
        return masks, others
    ignored = masks[:, n_classes:] | others[:, n_classes:]
    own, other = (torch.cat([m[:, :n_classes], ignored], dim=1) for m in (masks, others))
    return own, other
