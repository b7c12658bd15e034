"""The file ignored.csv: regions of training images excluded from losses, metrics and tuning.

It has the columns `ImageId,EncodedPixels`, one row per image. An ignored region overrides the
masks: they are cleared there.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data import rle
from steelseg.data.csv_records import read_table
from steelseg.data.image_table import IGNORED, ImageTable
from steelseg.data.inspection import Inspection
from steelseg.data.label_csv import IMAGE, PIXELS
from steelseg.data.listing import name_key

FILE = "ignored.csv"


def mark(images: ImageTable, path: Path, inspection: Inspection) -> tuple[ImageTable, Inspection]:
    """Add the regions of a file to a table, and clear its masks there.

    Without the file, or without a region in it, the table is returned unchanged. An image that is
    ignored entirely counts as unlabelled and is left out.

    Args:
        images: the annotated images.
        path: of the file, which may be missing.
        inspection: of their folder.

    Raises:
        BadInput: rows name an image twice or a missing one, an RLE is illegal, or all images are
            ignored entirely.
    """
    regions = _read(path, images, inspection) if path.exists() else []
    if not any(regions):
        return images, inspection
    table, sizes_hw = images.table, images.sizes_hw
    for class_id in images.classes:
        texts = map(_cut, images.rles(class_id), regions, sizes_hw)
        name = f"rle_{class_id}"
        column = pa.array(texts, pa.string())
        table = table.set_column(table.column_names.index(name), name, column)
    table = table.append_column(IGNORED, pa.array(regions, pa.string()))
    kept = [_is_left(*pair) for pair in zip(regions, sizes_hw, strict=True)]
    if not any(kept):
        raise BadInput(f"{path}: expected pixels that count, but all images are ignored")
    covered = {name for name, is_kept in zip(images.names, kept, strict=True) if not is_kept}
    inspection = inspection._replace(
        images=[one for one in inspection.images if one.image not in covered],
        unlabelled=sorted([*inspection.unlabelled, *covered]),
    )
    return ImageTable(table.filter(kept).combine_chunks(), images.class_infos), inspection


def report(images: ImageTable) -> dict[str, Any]:
    """Count the images with ignored regions and their share of all pixels; empty if none."""
    areas = [rle.area(text) for text in images.ignored if text]
    if not areas:
        return {}
    n_pixels = sum(height * width for height, width in images.sizes_hw)
    return {"images_ignored_in_part": len(areas), "ignored_pixels": sum(areas) / n_pixels}


def describe(report: Mapping[str, Any]) -> Iterator[str]:
    """Format the counts of `report` as a line for the terminal."""
    if n_images := report.get("images_ignored_in_part"):
        share = report["ignored_pixels"]
        yield f"{FILE}: parts of {n_images} training images are ignored, {share:.2%} of all pixels"


def _read(path: Path, images: ImageTable, inspection: Inspection) -> Sequence[str | None]:
    """Read the checked RLE of every image, None where nothing is ignored."""
    index = {name_key(name): at for at, name in enumerate(images.names)}
    left_out = set(map(name_key, inspection.left_out))
    first: dict[str, int] = {}
    regions: list[str | None] = [None] * len(images)
    sizes_hw = images.sizes_hw
    with Faults(str(path)) as faults:
        for line, fields in read_table(path, [IMAGE, PIXELS], [], faults):
            name, key = fields[IMAGE], name_key(fields[IMAGE])
            place = f"line {line}: image {quote(name)}"
            if first.setdefault(key, line) != line:
                faults.add(f"{place} is already in line {first[key]}")
            elif key in index:
                try:
                    runs = rle.parse(fields[PIXELS], sizes_hw[index[key]])
                    regions[index[key]] = rle.to_string(runs) or None
                except BadInput as error:
                    faults.add(f"{place}: {error}")
            elif key not in left_out:
                faults.add(f"{place}: no such image in the training folder")
    return regions


def _is_left(region: str | None, size_hw: tuple[int, int]) -> bool:
    return region is None or rle.area(region) < size_hw[0] * size_hw[1]


def _cut(text: str | None, region: str | None, size_hw: tuple[int, int]) -> str | None:
    """Return the part of a mask outside a region, None if nothing is left."""
    if text is None or region is None:
        return text
    mask_hw = rle.decode(text, size_hw)
    mask_hw[rle.decode(region, size_hw) == 1] = 0
    return rle.encode(mask_hw) or None
