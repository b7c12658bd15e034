"""Batches of images and masks: for training steps, and packed for transfer from workers."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from steelseg.core.sizes import MULTIPLE


class Batch(NamedTuple):
    """Images (B, N, H, W) uint8 or uint16 of N channels, masks (B, C, h, w) uint8 of C classes.

    h <= H and w <= W, and rows are (B,) int64. If the data set has ignored regions, there is one
    more mask, see `steelseg.train.ignored`.
    """

    images: Tensor
    masks: Tensor
    rows: Tensor

    def pack(self) -> "PackedBatch":
        """Pack the masks."""
        packed = torch.from_numpy(np.packbits(self.masks.numpy(), axis=-1))
        return PackedBatch(self.images, packed, self.rows, self.masks.shape[-1])


class PackedBatch(NamedTuple):
    """A batch whose masks are packed, eight pixels per byte: (B, C, h, ceil(w / 8)) uint8.

    With four classes it needs 30% of the shared memory and of the bandwidth to a GPU.
    """

    images: Tensor
    masks: Tensor
    rows: Tensor
    width: int
    """w, in pixels"""

    def unpack(self) -> Batch:
        """Unpack the masks on their device."""
        return Batch(self.images, unpack(self.masks, self.width), self.rows)


def packed_bytes(size_hw: tuple[int, int], n_masks: int, bytes_a_pixel: int = 1) -> int:
    """Return the bytes per padded image of a `PackedBatch`, with its masks and row."""
    height, width = size_hw
    padded = [-(-side // MULTIPLE) * MULTIPLE for side in size_hw]
    return padded[0] * padded[1] * bytes_a_pixel + n_masks * height * -(-width // 8) + 8


def unpack(packed: Tensor, width: int) -> Tensor:
    """Undo `numpy.packbits`: (..., ceil(width / 8)) to (..., width), uint8."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, count=width))
    return unpack_bits(packed, width)


def unpack_bits(packed: Tensor, width: int) -> Tensor:
    """Unpack as `unpack` does, by arithmetic that every device supports."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = packed[..., None] >> shifts & 1  # (..., ceil(width / 8), 8)
    return bits.flatten(-2)[..., :width]


def collate(batch: Any) -> Batch:
    """Return the batch that a data set already collated."""
    return batch  # type: ignore[no-any-return]


def collate_packed(batch: Any) -> PackedBatch:
    """Pack a batch for the transfer from a worker or to a GPU."""
    return collate(batch).pack()
