"""TIFF files written byte by byte, so that what reads them is tried against nothing of its own."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHORT, LONG = 3, 4
FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    pages: Sequence[npt.NDArray[Any]],
    order: str = "<",
    orientation: int = 1,
    planar: bool = False,
) -> bytes:
    """Write pages without compression, each in one strip.

    Args:
        pages: (H, W), or (H, W, 3) of red, green and blue.
        order: of the bytes, `<` or `>`.
        orientation: a tag of every page.
        planar: whether colours stand in planes, each in a strip of its own.
    """
    data = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    link = 4  # where the place of the next page is to be written
    for page in pages:
        samples = 3 if page.ndim == 3 else 1
        stored = np.moveaxis(page, -1, 0) if planar else page
        pixels = stored.astype(page.dtype.newbyteorder(order)).tobytes()
        n_strips = samples if planar else 1
        strips = [len(data) + i * len(pixels) // n_strips for i in range(n_strips)]
        data += pixels + bytes(len(pixels) % 2)
        tags = {
            256: (LONG, [page.shape[1]]),
            257: (LONG, [page.shape[0]]),
            258: (SHORT, [8 * page.itemsize] * samples),
            259: (SHORT, [1]),
            262: (SHORT, [2 if samples == 3 else 1]),
            273: (LONG, strips),
            274: (SHORT, [orientation]),
            277: (SHORT, [samples]),
            278: (LONG, [page.shape[0]]),
            279: (LONG, [len(pixels) // n_strips] * n_strips),
            284: (SHORT, [2 if planar else 1]),
            339: (SHORT, [FORMATS[page.dtype.kind]] * samples),
        }
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            packed = struct.pack(order + ("H" if kind == SHORT else "I") * len(values), *values)
            if len(packed) > 4:
                data += packed + bytes(len(packed) % 2)
                packed = struct.pack(order + "I", len(data) - len(packed) - len(packed) % 2)
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        data = data[:link] + struct.pack(order + "I", len(data)) + data[link + 4 :]
        link = len(data) + 2 + len(entries)
        data += struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return data
