"""Writing of the training cache; see `steelseg.data.cache` for its layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from steelseg.core.arrays import Float64, Uint8
from steelseg.core.errors import BadInput
from steelseg.core.files import SEAL, atomic_path, is_sealed, seal
from steelseg.core.params import Config
from steelseg.core.sealed import write_sealed_json
from steelseg.data import rle
from steelseg.data.cache import FORMAT, MANIFEST
from steelseg.data.image_table import ImageTable
from steelseg.data.images import read_grey


class CacheConfig(Config):
    """Parameters of the stage `cache_masks`."""

    data_root: str
    dataset: str
    shard_images: Annotated[int, Field(ge=1)]
    """images a shard; one shard is held in memory while it is written"""


def write(folder: Path, images_folder: Path, table: ImageTable, shard_images: int) -> Iterator[int]:
    """Write the cache of all annotated images; yields the number of images of each shard done.

    Shards that are there already, and sound, are kept: an interrupted call goes on where it was.
    The manifest is written last, so that a folder with a manifest is complete.

    Raises:
        BadInput: an image is unsound, or is no longer the file that the annotations were made of.
        SteelsegError: the disk is full.
    """
    names, digests = table.names, table.column("sha256")
    rles = [table.rles(c) for c in table.classes]
    shards: dict[str, str] = {}
    for start in range(0, len(names), shard_images):
        rows = range(start, min(start + shard_images, len(names)))
        path = folder / f"shard-{start // shard_images:05d}.arrow"
        if not is_sealed(path):
            pixels = _read_pixels(images_folder, names, digests, rows, table.size_hw)
            masks = _pack_masks(rles, rows, table.size_hw)
            _write_shard(path, [names[r] for r in rows], pixels, masks)
            seal(path)
        shards[path.name] = path.with_suffix(SEAL).read_text()
        yield len(rows)
    _write_manifest(folder, table, shards)
    for name in shards:
        (folder / name).with_suffix(SEAL).unlink()


def _read_pixels(
    folder: Path,
    names: Sequence[str],
    digests: Sequence[str],
    rows: range,
    size_hw: tuple[int, int],
) -> Uint8:
    pixels = np.empty((len(rows), *size_hw), dtype=np.uint8)
    for i, row in enumerate(rows):
        image_hw, digest = read_grey(folder / names[row])
        if digest != digests[row]:
            raise BadInput(f"{folder / names[row]}: has changed since pivot_csv looked at it")
        pixels[i] = image_hw
    return pixels


def _pack_masks(
    rles: Sequence[Sequence[str | None]], rows: range, size_hw: tuple[int, int]
) -> Uint8:
    height, width = size_hw
    packed = np.zeros((len(rows), len(rles), height, -(-width // 8)), dtype=np.uint8)
    for i, row in enumerate(rows):
        for channel, column in enumerate(rles):
            text = column[row]
            if text is not None:
                packed[i, channel] = np.packbits(rle.decode(text, size_hw), axis=-1)
    return packed


def _write_shard(path: Path, names: list[str], pixels: Uint8, masks: Uint8) -> None:
    columns = {
        "image": pa.array(names, pa.string()),
        "pixels": _fixed_size_binary(pixels),
        "masks": _fixed_size_binary(masks),
    }
    batch = pa.record_batch(columns)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def _fixed_size_binary(rows: Uint8) -> pa.Array:
    width = rows[0].size
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(rows), [None, pa.py_buffer(rows)]
    )


def _write_manifest(folder: Path, table: ImageTable, shards: dict[str, str]) -> None:
    mean, std = _pooled(np.array(table.column("mean")), np.array(table.column("std")))
    manifest = {
        "format": FORMAT,
        "annotations": table.identity,
        "images": len(table),
        "height": table.size_hw[0],
        "width": table.size_hw[1],
        "classes": table.classes,
        "mean": mean,
        "std": std,
        "shards": shards,
    }
    write_sealed_json(folder / MANIFEST, manifest)


def _pooled(means: Float64, stds: Float64) -> tuple[float, float]:
    """Mean and deviation of all pixels (0 to 1) from those of equally large images (0 to 255)."""
    mean = means.mean()
    variance = (stds**2 + means**2).mean() - mean**2
    return float(mean / 255), float(max(np.sqrt(max(variance, 0)), 1) / 255)
