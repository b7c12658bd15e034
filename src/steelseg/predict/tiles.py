"""Predicts images that are too large for a network by blending overlapping tiles, block by block.

A block is yielded once no further tile reaches into it. So memory is needed for the image and for
one row of tiles across its shorter side, however long the other side is.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from steelseg.core.arrays import Float32, Pixels, Uint8
from steelseg.core.sizes import Size, pad, padded_size
from steelseg.predict.views import Network

WHOLE = 2**23  # pixels, such as 2048x4096: the largest image predicted whole if no `tile` is set
TILE = (2048, 2048)  # height and width of the tiles of larger images


class Block(NamedTuple):
    """The probability maps of a part of an image: its top left corner, and (C, h, w) float32."""

    top: int
    left: int
    maps_chw: Float32


class Maps(NamedTuple):
    """An image's probability maps, as blocks that cover it once; can be iterated once."""

    size_hw: Size
    blocks: Iterable[Block]

    def whole(self) -> Float32:
        """Assemble the blocks: (C, H, W) float32."""
        maps_chw: Float32 | None = None
        for top, left, block_chw in self.blocks:
            if block_chw.shape[1:] == self.size_hw:
                return block_chw
            if maps_chw is None:
                maps_chw = np.empty((len(block_chw), *self.size_hw), dtype=np.float32)
            maps_chw[:, *_window(top, left, block_chw)] = block_chw
        assert maps_chw is not None
        return maps_chw

    def outside(self, ignored_hw: Uint8 | None) -> "Maps":
        """Set probabilities to 0 where a mask (H, W) of 0 and 1 is 1, for scoring."""
        if ignored_hw is None:
            return self
        return self._replace(
            blocks=(
                Block(top, left, maps_chw * (1 - ignored_hw[_window(top, left, maps_chw)]))
                for top, left, maps_chw in self.blocks
            )
        )


def _window(top: int, left: int, maps_chw: Float32) -> tuple[slice, slice]:
    height, width = maps_chw.shape[1:]
    return slice(top, top + height), slice(left, left + width)


def is_large(size_hw: Sequence[int]) -> bool:
    """Whether an image is predicted by tiles even if `tile` is not set."""
    return math.prod(size_hw) > WHOLE


def as_maps(maps_chw: Float32) -> Maps:
    """Wrap whole maps, (C, H, W) float32, as one block."""
    _, height, width = maps_chw.shape
    return Maps((height, width), [Block(0, 0, maps_chw)])


def tiled(
    network: Network, image_chw: Pixels, tile: Sequence[int], overlap: float, batch_size: int = 1
) -> Iterator[Block]:
    """Cover an image with overlapping tiles, and blend the network's outputs.

    A tile's weight falls off linearly to its edges, where pixels have the least context. Where only
    one tile contributes, the output is exactly that of the network.

    Args:
        network: called with batches of tiles.
        image_chw: (C, H, W), of any size.
        tile: height and width, multiples of 32; a shorter axis is used whole.
        overlap: least share of a tile that overlaps with the next.
        batch_size: the largest number of tiles per batch.
    """
    if image_chw.shape[1] <= image_chw.shape[2]:
        yield from _strips(network, image_chw, tile, overlap, batch_size)
        return

    def turned(tiles: Pixels) -> Float32:
        return network(np.ascontiguousarray(tiles.swapaxes(-1, -2))).swapaxes(-1, -2)

    lying = image_chw.swapaxes(1, 2)
    for left, top, maps_cwh in _strips(turned, lying, tile[::-1], overlap, batch_size):
        yield Block(top, left, maps_cwh.swapaxes(1, 2))


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return the starts of tiles spread evenly over an axis, the last one flush with the end."""
    step = max(1, tile * (1 - overlap))  # no two tiles coincide, however large the overlap
    n_tiles = 1 + math.ceil((size - tile) / step)
    return [round(start) for start in np.linspace(0, size - tile, n_tiles).tolist()]


def _strips(
    network: Network, image_chw: Pixels, tile: Sequence[int], overlap: float, batch_size: int
) -> Iterator[Block]:
    """Yield the blocks of `tiled`, from left to right and of full height."""
    height, width = image_chw.shape[1:]
    size_hw = padded_size((height, width))
    sides_hw = [min(side, size) for side, size in zip(tile, size_hw, strict=True)]
    tops, lefts = (tile_starts(n, s, overlap) for n, s in zip(size_hw, sides_hw, strict=True))
    rows, columns = (_shares(*axis) for axis in zip(size_hw, sides_hw, (tops, lefts), strict=True))
    corners = [(top, left) for left in lefts for top in tops]
    answers = _answers(network, image_chw, corners, sides_hw, batch_size)
    strip_chw: Float32 | None = None  # all columns that the tiles cover, from `left` on
    for left, following, across in zip(lefts, [*lefts[1:], size_hw[1]], columns, strict=True):
        for top, down in zip(tops, rows, strict=True):
            seen_chw = next(answers)
            if strip_chw is None:
                strip_chw = np.zeros((len(seen_chw), size_hw[0], sides_hw[1]), dtype=np.float32)
            strip_chw[:, top : top + sides_hw[0]] += seen_chw * np.outer(down, across)
        assert strip_chw is not None
        n_done = following - left
        done_chw = strip_chw[:, :height, : min(n_done, width - left)]
        yield Block(0, left, np.minimum(done_chw, np.float32(1)))  # rounding may exceed 1
        strip_chw[..., :-n_done] = strip_chw[..., n_done:]
        strip_chw[..., -n_done:] = 0


def _answers(
    network: Network,
    image_chw: Pixels,
    corners: Sequence[tuple[int, int]],
    sides_hw: Sequence[int],
    batch_size: int,
) -> Iterator[Float32]:
    """Yield the network's output for each tile, (C, h, w), with the tile's top left corner.

    Small tiles are batched.
    """
    height, width = sides_hw
    at_once = max(1, min(batch_size, math.prod(TILE) // (height * width)))
    for start in range(0, len(corners), at_once):
        tiles = [
            pad(image_chw[:, top : top + height, left : left + width], sides_hw)
            for top, left in corners[start : start + at_once]
        ]
        yield from network(np.stack(tiles))


def _shares(size: int, tile: int, starts: Sequence[int]) -> list[Float32]:
    """Return the weights of each tile along an axis, (tile,), which sum to 1 at every pixel."""
    rising = np.arange(1, tile + 1) / tile
    tent = np.minimum(rising, rising[::-1])
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += tent
    return [(tent / total[start : start + tile]).astype(np.float32) for start in starts]
