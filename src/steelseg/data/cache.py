"""The training cache: decoded pixels and bit-packed masks in a few large Arrow files.

A cache is a folder of shards (Arrow IPC, one record batch each) and a `manifest.json`. A shard's
columns are `image` (string), `height`, `width`, `pixels` (the bytes of (H, W) uint8, or as stated
by `PixelFormat`) and `masks` (C x H x ceil(W / 8) bytes, the bits of a mask's row from left to
right, as `numpy.packbits` writes them). If any image has ignored regions, every image has one more
mask, the last, of what is ignored.

Images are read by position (`pread`) and not through a memory map: the copy from the page cache
costs the same, the resident memory of a process does not grow as it reads, and a truncated file is
an error and not a SIGBUS.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from steelseg.core.arrays import Int64, Pixels, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput
from steelseg.core.files import sha256
from steelseg.core.pixels import PixelFormat
from steelseg.core.sealed import read_sealed_json
from steelseg.core.sizes import Size, typical_size

MANIFEST = "manifest.json"
FORMAT = 4

BLACK = 10  # highest grey level beside the plate: JPEG lightens the black there
Rows = Int64
"""Indices of images in the cache."""


class _Shard(NamedTuple):
    """The images of a file, and the byte offsets of their pixels and masks in it."""

    path: Path
    names: list[str]
    sizes_hw: list[tuple[int, int]]
    pixels_at: list[int]
    masks_at: list[int]


class Cache:
    """Random access to the images and masks of a cache folder; cheap to send to a worker.

    Attributes:
        folder: its path.
        names: the images, in row order.
        class_infos, classes: the classes and their ids, in channel order.
        has_ignored: whether any image has ignored regions.
        sizes_hw: height and width of each image in pixels.
        pixels: the pixel format of its images.
        mean, std: of all levels of each channel, 0 to 1.
        annotations: identity of the annotations that it was made from.
        identity: SHA-256 of the manifest, which covers the annotations and all shards.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache and verify every shard against its checksum.

        Raises:
            BadInput: the folder holds no cache, or a shard is missing or damaged.
        """
        self.folder = folder
        manifest = _read_manifest(folder / MANIFEST)
        self.class_infos = [ClassInfo(**one) for one in manifest["classes"]]
        self.classes = [one.id for one in self.class_infos]
        self.has_ignored: bool = manifest.get("ignored", False)
        self.pixels = PixelFormat(**manifest["pixels"])
        self.mean: list[float] = manifest["mean"]
        self.std: list[float] = manifest["std"]
        self.annotations: str = manifest["annotations"]
        self.identity = sha256(folder / MANIFEST)
        for name, digest in manifest["shards"].items():
            verify(folder / name, digest)
        self._shards = [_open_shard(folder / name) for name in sorted(manifest["shards"])]
        self.names = [name for shard in self._shards for name in shard.names]
        self.sizes_hw = [size_hw for shard in self._shards for size_hw in shard.sizes_hw]
        self._locate = [
            (s, i) for s in range(len(self._shards)) for i in range(len(self._shards[s].names))
        ]
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}  # a file descriptor means nothing elsewhere

    def refuse_other(self, identity: str | None, made_of_it: Path) -> None:
        """Check that a file, which states the cache it was made from, was made from this one.

        Raises:
            BadInput: it was made from another.
        """
        if identity != self.identity:
            raise BadInput(
                f"{made_of_it}: was made from another cache than {self.folder}; run `dvc repro`"
            )

    @property
    def typical_size_hw(self) -> Size:
        """The medians of the images' heights and widths."""
        return typical_size(self.sizes_hw)

    @property
    def n_masks(self) -> int:
        """Masks per image: one per class, and one of ignored regions if `has_ignored`."""
        return len(self.classes) + self.has_ignored

    @property
    def has_one_size(self) -> bool:
        """Whether all images have the same size."""
        return len(set(self.sizes_hw)) == 1

    def image(self, row: int) -> Pixels:
        """Return the image of a row: (H, W), or (C, H, W) for several channels."""
        height, width = self.sizes_hw[row]
        shard, index = self._locate[row]
        n_bytes = height * width * self.pixels.bytes_a_pixel
        raw = self._read(shard, self._shards[shard].pixels_at[index], n_bytes)
        planes: Pixels = raw.view(self.pixels.dtype).reshape(-1, height, width)
        return planes if self.pixels.channels > 1 else planes[0]

    def packed_masks(self, row: int) -> Uint8:
        """Return the masks of a row, eight pixels per byte: (`n_masks`, H, ceil(W / 8)) uint8."""
        height, width = self.sizes_hw[row]
        shape = (self.n_masks, height, -(-width // 8))
        shard, index = self._locate[row]
        raw = self._read(shard, self._shards[shard].masks_at[index], shape[0] * shape[1] * shape[2])
        return raw.reshape(shape)

    def masks(self, row: int) -> Uint8:
        """Return the masks of a row: (C, H, W) uint8 of 0 and 1."""
        packed = self.packed_masks(row)[: len(self.classes)]
        return np.unpackbits(packed, axis=-1, count=self.sizes_hw[row][1])

    def ignored(self, row: int) -> Uint8 | None:
        """Return the ignored region of a row, (H, W) uint8 of 0 and 1; None if there is none."""
        packed_hw = self.packed_masks(row)[-1] if self.has_ignored else None
        if packed_hw is None or not packed_hw.any():
            return None
        return np.unpackbits(packed_hw, axis=-1, count=self.sizes_hw[row][1])

    def _read(self, shard: int, offset: int, n_bytes: int) -> Uint8:
        if shard not in self._files:
            self._files[shard] = os.open(self._shards[shard].path, os.O_RDONLY)
        buffer = np.empty(n_bytes, dtype=np.uint8)
        if os.preadv(self._files[shard], [buffer.data], offset) != n_bytes:
            raise BadInput(f"{self._shards[shard].path}: was truncated while it was in use")
        return buffer


def verify(path: Path, digest: str) -> None:
    """Check a file against its SHA-256.

    Raises:
        BadInput: the file is missing or has changed since it was written.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; run `dvc repro` again")
    if sha256(path) != digest:
        raise BadInput(f"{path}: is damaged (its checksum differs); delete it and run `dvc repro`")


def _read_manifest(path: Path) -> dict[str, Any]:
    entries = read_sealed_json(path)
    if entries["format"] != FORMAT:
        raise BadInput(f"{path}: expected a cache of format {FORMAT}; run `dvc repro` again")
    return entries


def _open_shard(path: Path) -> _Shard:
    try:
        with pa.memory_map(str(path)) as source:
            start = source.read_buffer(1).address
            batch = pa.ipc.open_file(source).get_batch(0)
            names, *sides = (batch.column(n).to_pylist() for n in ("image", "height", "width"))
            starts = [_value_offsets(batch.column(n), start) for n in ("pixels", "masks")]
            return _Shard(path, names, list(zip(*sides, strict=True)), *starts)
    except (pa.ArrowException, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: cannot be read as a shard of the cache: {reason}") from error


def _value_offsets(column: pa.Array, start: int) -> list[int]:
    """Return the file offsets of a column's values; the file is mapped from `start` on."""
    _, offsets, values = column.buffers()
    first: list[int] = (np.frombuffer(offsets, np.int64) + (values.address - start)).tolist()
    return first
