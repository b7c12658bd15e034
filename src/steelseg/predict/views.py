"""Averages predictions over several views of an image (flips and turns) and several networks.

Each function wraps a network and returns another, so runtimes need no code for it.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from steelseg.core.arrays import Float32, Pixels
from steelseg.core.params import Config
from steelseg.core.sizes import MULTIPLE

Network = Callable[[Pixels], Float32]
"""Maps images (B, N, H, W), H and W multiples of 32, to probabilities (B, C, H, W)."""
Member = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
Side = Annotated[int, Field(ge=1)]
TURNS = {"none": (0,), "flips": (0, 2), "d4": (0, 1, 2, 3)}  # quarter turns; each also mirrored


class ViewsConfig(Config):
    """How probability maps are computed; tuned rules are valid for these views only."""

    tta: Literal["none", "flips", "d4"] = "none"
    """test-time augmentation, the mean over an image's `flips` (4 views) or over all its flips and
    turns by 90 degrees (`d4`, 8 views)"""
    tile: Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """height and width, multiples of 32, of overlapping tiles to predict instead of whole images;
    null tiles only images that are too large for the network (see `tiles.WHOLE`)"""
    tile_overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """least share of a tile that overlaps with the next"""
    ensemble: list[Member] = Field(default=[])
    """names of further models in models/members, whose probabilities are averaged with the
    model's own: the first 12 digits of their weights' SHA-256, as printed by `python -m steelseg
    member`"""

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
    """Average the probabilities of networks, in their order; a single one is returned as is."""
    if len(networks) == 1:
        return networks[0]

    def run(images: Pixels) -> Float32:
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

    def run(images: Pixels) -> Float32:
        total: Float32 | None = None
        for quarters in turns:
            turned = np.rot90(images, quarters, axes=(2, 3))
            for step in (1, -1):  # unchanged, and mirrored
                seen = network(np.ascontiguousarray(turned[..., ::step]))
                back = np.rot90(seen[..., ::step], -quarters, axes=(2, 3))
                total = back.copy() if total is None else total + back
        assert total is not None
        return total / np.float32(2 * len(turns))

    return run
