"""What is ignored in training images: it counts in no loss and in no metric.

A batch has it as a last mask (B, 1, h, w) behind those of the classes. Here, and nowhere else, it
is taken out of what is compared: such a pixel's logits become a constant, which no gradient passes,
and no class is there.
"""

import torch
from torch import Tensor

from steelseg.train.mixing import Blend

NOWHERE = -8192.0  # a logit that finds nothing in any precision, and that half precision has too


def without_ignored(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Take what is ignored out of logits (B, C, h, w) and masks; both are as they were for nothing.

    Args:
        logits: of the classes.
        masks: (B, C, h, w), or (B, C + 1, h, w) with what is ignored as the last.
    """
    n_classes = logits.shape[1]
    if masks.shape[1] == n_classes:
        return logits, masks
    ignored = masks[:, n_classes:].bool()
    return logits.masked_fill(ignored, NOWHERE), masks[:, :n_classes].masked_fill(ignored, 0)


def blended_masks(masks: Tensor, blend: Blend, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return the masks that a mixup's images keep, and those of the others: (B, K, h, w) each.

    What is ignored in either of two images is ignored in their blend: it shows both.
    """
    others = masks[blend.others]
    if masks.shape[1] == n_classes:
        return masks, others
    ignored = masks[:, n_classes:] | others[:, n_classes:]
    own, other = (torch.cat([m[:, :n_classes], ignored], dim=1) for m in (masks, others))
    return own, other
