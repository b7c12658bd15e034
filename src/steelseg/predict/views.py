"""Several looks at an image, put together: flips and turns, overlapping tiles, several networks.

Each function wraps a network and returns one of the same kind, so no runtime needs code for it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from steelseg.core.arrays import Float32, Uint8
from steelseg.core.params import Config
from steelseg.core.sizes import MULTIPLE

Network = Callable[[Uint8], Float32]
"""Maps images (B, 1, H, W) uint8, H and W multiples of 32, to probabilities (B, C, H, W)."""
Member = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
Side = Annotated[int, Field(ge=1)]
TURNS = {"none": (0,), "flips": (0, 2), "d4": (0, 1, 2, 3)}  # quarters; each also mirrored


class ViewsConfig(Config):
    """How a probability map comes about; tuned rules hold for these views only."""

    tta: Literal["none", "flips", "d4"] = "none"
    """test-time augmentation, the mean over an image's `flips` (4 views) or over all its flips and
    turns by 90 degrees (`d4`, 8 views)"""
    tile: Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """height and width, multiples of 32, of overlapping tiles that the network is given one after
    the other; null gives it whole images"""
    tile_overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """least share of a tile that the next one covers too"""
    ensemble: list[Member] = Field(default=[])
    """names of further models in models/members, whose probabilities are averaged with the
    model's own: the first 12 digits of their weights' SHA-256, as `python -m steelseg member`
    says them"""

    @field_validator("tile")
    @classmethod
    def _check_multiples(cls, tile: list[int] | None) -> list[int] | None:
        if tile and any(side % MULTIPLE for side in tile):
            raise ValueError(f"multiples of {MULTIPLE}")
        return tile

    @field_validator("ensemble")
    @classmethod
    def _check_unlike(cls, ensemble: list[str]) -> list[str]:
        if len(set(ensemble)) < len(ensemble):
            raise ValueError("each member once")
        return ensemble


def mean_of(networks: Sequence[Network]) -> Network:
    """Average the probabilities of networks, in their order; one alone is returned as it is."""
    if len(networks) == 1:
        return networks[0]

    def run(images: Uint8) -> Float32:
        total = networks[0](images).copy()
        for network in networks[1:]:
            total += network(images)
        return total / np.float32(len(networks))

    return run


def with_flips(network: Network, tta: str) -> Network:
    """Average a network's probabilities over the flips and turns that `tta` names."""
    if tta == "none":
        return network
    turns = TURNS[tta]

    def run(images: Uint8) -> Float32:
        total: Float32 | None = None
        for quarters in turns:
            turned = np.rot90(images, quarters, axes=(2, 3))
            for step in (1, -1):  # as it is, and mirrored
                seen = network(np.ascontiguousarray(turned[..., ::step]))
                back = np.rot90(seen[..., ::step], -quarters, axes=(2, 3))
                total = back.copy() if total is None else total + back
        assert total is not None
        return total / np.float32(2 * len(turns))

    return run


def with_tiles(network: Network, tile: Sequence[int] | None, overlap: float) -> Network:
    """Cover images with overlapping tiles, and blend what the network says of each.

    A tile's weight falls off linearly to its edges, where the network sees least around a pixel. An
    axis shorter than the tile is taken whole.
    """
    if tile is None:
        return network

    def run(images: Uint8) -> Float32:
        sides = [min(side, size) for side, size in zip(tile, images.shape[2:], strict=True)]
        starts = [
            tile_starts(n, side, overlap) for n, side in zip(images.shape[2:], sides, strict=True)
        ]
        weight_hw = np.outer(*(_tent(side) for side in sides))
        total: Float32 | None = None
        weights = np.zeros(images.shape[2:], dtype=np.float32)
        for top in starts[0]:
            for left in starts[1]:
                window = (..., slice(top, top + sides[0]), slice(left, left + sides[1]))
                seen = network(np.ascontiguousarray(images[window]))
                if total is None:
                    total = np.zeros((*seen.shape[:2], *images.shape[2:]), dtype=np.float32)
                total[window] += seen * weight_hw
                weights[window] += weight_hw
        assert total is not None
        blended: Float32 = total / weights
        return blended

    return run


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Spread tiles evenly over an axis: where each starts, the last one flush with the end."""
    step = max(1, tile * (1 - overlap))  # no two tiles at one place, however large the overlap
    n_tiles = 1 + math.ceil((size - tile) / step)
    return [round(start) for start in np.linspace(0, size - tile, n_tiles).tolist()]


def _tent(size: int) -> Float32:
    rising = np.arange(1, size + 1, dtype=np.float32) / np.float32(size)
    tent: Float32 = np.minimum(rising, rising[::-1])
    return tent
