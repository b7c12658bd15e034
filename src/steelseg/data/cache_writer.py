"""Writes the training cache; see `steelseg.data.cache` for its layout."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from steelseg.core.arrays import Float64, Pixels, Uint8
from steelseg.core.errors import BadInput
from steelseg.core.files import SEAL, atomic_path, is_sealed, seal
from steelseg.core.params import Config
from steelseg.core.pixels import PixelFormat
from steelseg.core.sealed import write_sealed_json
from steelseg.data import rle
from steelseg.data.cache import FORMAT, MANIFEST
from steelseg.data.decoding import read
from steelseg.data.image_table import ImageTable

SHARD_BYTES = 2**28  # of pixels, unless a single image has more: a shard is held in memory


class CacheConfig(Config):
    """Parameters of the stage `cache_masks`."""

    data_root: str
    dataset: str
    shard_images: Annotated[int, Field(ge=1)]
    """images per shard; one shard is held in memory while it is written"""


def write(folder: Path, images_folder: Path, table: ImageTable, shard_images: int) -> Iterator[int]:
    """Write the cache of all annotated images; yields the number of images of each shard.

    Existing intact shards are kept: an interrupted call continues where it stopped. The manifest
    is written last, so a folder with a manifest is complete.

    Raises:
        BadInput: an image is broken, or has changed since the annotations were made.
        SteelsegError: the disk is full.
    """
    names, sizes_hw, pixels = table.names, table.sizes_hw, table.pixels
    digests, rles = table.column("sha256"), [table.rles(c) for c in table.classes]
    if any(table.ignored):
        rles.append(table.ignored)
    shards: dict[str, str] = {}
    for number, rows in enumerate(shard_rows(sizes_hw, shard_images, pixels.bytes_a_pixel)):
        path = folder / f"shard-{number:05d}.arrow"
        if not is_sealed(path):
            columns = {
                "image": pa.array([names[row] for row in rows], pa.string()),
                "height": pa.array([sizes_hw[row][0] for row in rows], pa.int32()),
                "width": pa.array([sizes_hw[row][1] for row in rows], pa.int32()),
                "pixels": _binary(
                    _read(images_folder / names[r], digests[r], pixels) for r in rows
                ),
                "masks": _binary(_pack([c[r] for c in rles], sizes_hw[r]) for r in rows),
            }
            _write_shard(path, columns)
            seal(path)
        shards[path.name] = path.with_suffix(SEAL).read_text()
        yield len(rows)
    _write_manifest(folder, table, shards)
    for name in shards:
        (folder / name).with_suffix(SEAL).unlink()


def shard_rows(
    sizes_hw: Sequence[tuple[int, int]], shard_images: int, bytes_a_pixel: int = 1
) -> Iterator[range]:
    """Divide rows into shards of a fixed number of images, fewer where they are large."""
    start = held = 0
    for row, (height, width) in enumerate(sizes_hw):
        n_bytes = height * width * bytes_a_pixel
        full = row - start == shard_images or held + n_bytes > SHARD_BYTES
        if full and row > start:
            yield range(start, row)
            start, held = row, 0
        held += n_bytes
    if start < len(sizes_hw):
        yield range(start, len(sizes_hw))


def _read(path: Path, digest: str, pixels: PixelFormat) -> Pixels:
    image, found = read(path, pixels)
    if found != digest:
        raise BadInput(f"{path}: has changed since pivot_csv read it")
    return image


def _pack(texts: Sequence[str | None], size_hw: tuple[int, int]) -> Uint8:
    height, width = size_hw
    packed_chw = np.zeros((len(texts), height, -(-width // 8)), dtype=np.uint8)
    for channel, text in enumerate(texts):
        if text is not None:
            packed_chw[channel] = np.packbits(rle.decode(text, size_hw), axis=-1)
    return packed_chw


def _binary(values: Iterable[Pixels]) -> pa.Array:
    """Concatenate arrays of bytes; they may be gigabytes, so nothing is copied twice."""
    arrays = [value.ravel().view(np.uint8) for value in values]
    ends = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int64)
    joined = np.concatenate(arrays)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(joined)]
    return pa.Array.from_buffers(pa.large_binary(), len(arrays), buffers)


def _write_shard(path: Path, columns: dict[str, pa.Array]) -> None:
    batch = pa.record_batch(columns)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def _write_manifest(folder: Path, table: ImageTable, shards: dict[str, str]) -> None:
    areas = np.array([height * width for height, width in table.sizes_hw], dtype=np.float64)
    means, stds = (np.array(table.column(name)).T for name in ("mean", "std"))  # (C, N)
    pooled = [_pooled(*of_one, areas, table.pixels) for of_one in zip(means, stds, strict=True)]
    manifest = {
        "format": FORMAT,
        "annotations": table.identity,
        "images": len(table),
        "classes": [one._asdict() for one in table.class_infos],
        "pixels": table.pixels.model_dump(),
        "mean": [mean for mean, _ in pooled],
        "std": [std for _, std in pooled],
        "shards": shards,
        **({"ignored": True} if any(table.ignored) else {}),
    }
    write_sealed_json(folder / MANIFEST, manifest)


def _pooled(
    means: Float64, stds: Float64, areas: Float64, pixels: PixelFormat
) -> tuple[float, float]:
    """Pool the means and deviations of images, scaled to 0 to 1 between the limits."""
    weights = areas / areas[0]
    mean = float(np.average(means, weights=weights))
    variance = float(np.average(stds**2 + means**2, weights=weights)) - mean**2
    least = pixels.span / 255
    std = max(math.sqrt(max(variance, 0)), least) / pixels.span
    return (mean - pixels.low) / pixels.span, std
