"""Label Studio: a JSON export with a list of tasks, with brush strokes and polygons.

A brush covers the pixels whose alpha is not 0, as in Label Studio's own converter. Polygons, in
percent of the image, are painted as by pycocotools. A task that was skipped or not submitted is
unlabelled; a submitted one without regions is clean. Of several annotations, the one marked as
ground truth counts, else the first. Browsers show images upright.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.formats import outlines
from steelseg.formats.documents import LOOKED_AT, documents, folder_of, read_json, text_of
from steelseg.formats.outlines import TOO_FEW, LeftOut
from steelseg.formats.reading import Drawn, Images, Labels
from steelseg.formats.record import Options, Source

OTHER = "further annotation of an image; only one counts"
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's prefix of uploaded files
_CHANNELS = 4
_LENGTHS = 4  # widths of run lengths that a brush selects from


class _Region(NamedTuple):
    labels: list[str]
    value: Mapping[str, Any]
    size_hw: tuple[object, object]
    turned: object


def recognises(source: Path) -> bool:
    """Whether a file, or one below a folder, looks like a Label Studio export."""
    return bool(_documents(source, LOOKED_AT))


def read(source: Path, options: Options) -> Source:
    """Read a JSON export of tasks and their images.

    Raises:
        BadInput: there is no such file, or it is not Label Studio's.
    """
    paths = _documents(source)
    if not paths:
        raise BadInput(f"{source}: expected a JSON export of Label Studio (tasks, annotations)")
    images = Images(folder_of(source, paths, options))
    for path in paths:
        with Faults(str(path)) as faults:
            for i, task in enumerate(_check_document(path)):
                key = f"task {quote(task.get('id', i))}"
                try:
                    _read_task(task, key, images)
                except BadInput as error:
                    faults.add(f"{key}: {error}")
    shapes = [s for image in images.annotated.values() for s in (image.shapes or {}).values()]
    labels = Labels(sorted({label for shape in shapes for label in shape.labels}), options)
    return Source(labels.classes, images.records(_draw, labels), images.left_out)


def decode_brush(data: bytes, size_hw: tuple[int, int]) -> Uint8:
    """Decode the run lengths of a brush, a bit stream of the RGBA values of all pixels.

    The header has the number of values (32 bits), their width minus one (5 bits) and four widths
    of run lengths minus one (4 bits each). Then follow runs: a bit for one repeated value, 2 bits
    that select a width, the run length minus one, and the repeated value or that many values.

    Returns:
        (H, W) uint8 of 0 and 1: where alpha is not 0.

    Raises:
        BadInput: the data end early, or are of another size.
    """
    bits = _Bits(data)
    height, width = size_hw
    n_values, word = bits.take(32), bits.take(5) + 1
    if n_values != _CHANNELS * height * width:
        raise BadInput(f"expected a brush of {height}x{width} pixels, but got {n_values} values")
    lengths = [bits.take(4) + 1 for _ in range(_LENGTHS)]
    values = np.zeros(n_values, dtype=bool)
    at = 0
    while at < n_values:
        repeats = bits.take(1)
        stop = min(at + 1 + bits.take(lengths[bits.take(2)]), n_values)
        values[at:stop] = bits.take(word) if repeats else bits.take_many(stop - at, word)
        at = stop
    return values.reshape(height, width, _CHANNELS)[:, :, 3].astype(np.uint8)


class _Bits:
    """Reads bytes a few bits at a time, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        """Read a number of up to 32 bits."""
        first, stop = self._at // 8, -(-(self._at + count) // 8)
        if stop > len(self._data):
            raise BadInput("expected a whole brush, but its data end early")
        number = int.from_bytes(self._data[first:stop], "big") >> (8 * stop - self._at - count)
        self._at += count
        return number & ((1 << count) - 1)

    def take_many(self, n_numbers: int, count: int) -> list[int]:
        """Read several numbers of equal width."""
        return [self.take(count) for _ in range(n_numbers)]


def _documents(source: Path, first: int | None = None) -> list[Path]:
    return documents(source, ".json", ["[", '"annotations"', '"data"'], first)


def _check_document(path: Path) -> list[dict[str, Any]]:
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadInput(f"{path}: expected a list of tasks, as Label Studio exports them in JSON")
    return tasks


def _read_task(task: Mapping[str, Any], key: str, images: Images) -> None:
    name = _find_image(task.get("data"), images)
    annotations = task.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise BadInput(f"expected a list of annotations, but got {quote(annotations)}")
    submitted = [a for a in annotations if not (a.get("was_cancelled") or a.get("skipped"))]
    submitted.sort(key=lambda annotation: not annotation.get("ground_truth"))
    for other in submitted[1:]:
        images.left_out[f"{key}: annotation {quote(other.get('id'))}"] = OTHER
    images.add(name, key, _read_regions(submitted[0]) if submitted else None)


def _find_image(data: object, images: Images) -> str | None:
    """Find the image of a task: the first of its texts that is the path of an image."""
    texts = (
        [text for text in data.values() if isinstance(text, str)] if isinstance(data, dict) else []
    )
    for text in texts:
        parts = urlsplit(text)
        path = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
        base = path.rpartition("/")[2]
        uploaded = [_UPLOAD.sub("", base)] if _UPLOAD.match(base) else []
        for reference in (path, *uploaded):
            name = images.find_ending(reference)
            if name is not None:
                return name
    return None


def _read_regions(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the regions of an annotation; the labels may be in another entry."""
    results = annotation.get("result")
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise BadInput(f"expected a list of regions as `result`, but got {quote(results)}")
    regions: dict[str, Any] = {}
    for i, result in enumerate(results):
        kind, value = str(result.get("type")), result.get("value")
        if not isinstance(value, dict) or not kind.endswith("labels"):
            continue
        labels = value.get(kind)
        if not isinstance(labels, list):
            raise BadInput(f"expected labels of a region, but got {quote(labels)}")
        named = [text_of(label, "a label") for label in labels]
        size_hw = result.get("original_height"), result.get("original_width")
        key = f"region {result.get('id', i)}"
        key = key if key not in regions else f"{key} (entry {i})"
        regions[key] = _Region(named, value, size_hw, result.get("image_rotation"))
    return regions


def _draw(region: _Region, size_hw: tuple[int, int]) -> Drawn:
    value = region.value
    if region.size_hw not in [(None, None), size_hw]:
        raise BadInput(
            f"the annotation is for an image of {quote(region.size_hw[0])}x"
            f"{quote(region.size_hw[1])}, but this one is {size_hw[0]}x{size_hw[1]}"
        )
    if region.turned:
        raise BadInput(
            "was drawn on an image turned in the editor, which is not supported; turn the image "
            "file itself, and annotate it again"
        )
    if not region.labels:
        raise LeftOut("region without a label")
    if "rle" in value:
        return Drawn(region.labels, decode_brush(_to_bytes(value["rle"]), size_hw))
    if "points" in value:
        return Drawn(region.labels, _paint_polygon(value["points"], size_hw))
    raise LeftOut("region that is neither a brush nor a polygon")


def _to_bytes(values: object) -> bytes:
    try:
        if not isinstance(values, list):
            raise TypeError
        return bytes(values)
    except (TypeError, ValueError):
        raise BadInput(f"expected `rle` as a list of bytes, but got {quote(values)}") from None


def _paint_polygon(points: object, size_hw: tuple[int, int]) -> Uint8:
    percents = outlines.to_points(points, (100, 100))
    if len(percents) < 3:
        raise LeftOut(TOO_FEW)
    return outlines.fill([percents * np.array(size_hw[::-1]) / 100], size_hw)
