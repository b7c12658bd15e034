"""Predicts test images in parts, so that an interrupted prediction can resume."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steelseg.core.arrays import Pixels
from steelseg.core.errors import BadInput
from steelseg.core.files import is_sealed, seal
from steelseg.core.params import Config
from steelseg.data import decoding
from steelseg.data.image_table import ImageTable
from steelseg.predict.model import Finding, Model
from steelseg.predict.predictions import PredictionRow, read_predictions, write_predictions


class PredictConfig(Config):
    """Parameters of the stage `predict`."""

    data_root: str
    dataset: str
    part_images: Annotated[int, Field(ge=1)]
    """images per part; an interrupted prediction resumes at the next part"""


def predict_images(
    folder: Path, names: Sequence[str], digests: Sequence[str], model: Model
) -> Iterator[PredictionRow]:
    """Yield one row per image and class.

    Args:
        folder: of the images.
        names: of their files in it.
        digests: the SHA-256 of each file when it was checked.
        model: the model.

    Raises:
        BadInput: an image is broken, or has changed since it was checked.
    """

    def read(item: tuple[str, str]) -> Pixels:
        name, digest = item
        image, found = decoding.read(folder / name, model.card.pixels)
        if found != digest:
            raise BadInput(f"{folder / name}: has changed since pivot_csv read it")
        return image

    for (name, _), findings in model.outcomes(zip(names, digests, strict=True), read):
        if isinstance(findings, BadInput):
            raise findings
        yield from rows_of(name, findings)


def predict_parts(
    work: Path, images: ImageTable, folder: Path, model: Model, part_images: int
) -> Iterator[list[PredictionRow]]:
    """Yield the rows of the images, part by part.

    Each part is kept in the folder `work`; existing intact parts are read back.
    """
    names, digests = images.names, images.column("sha256")
    for start in range(0, len(names), part_images):
        part = slice(start, start + part_images)
        path = work / f"part-{start // part_images:05d}.parquet"
        if not is_sealed(path):
            write_predictions(path, predict_images(folder, names[part], digests[part], model))
            seal(path)
        yield read_predictions(path)


def rows_of(image: str, findings: Iterable[Finding]) -> list[PredictionRow]:
    """Return the rows of an image's findings."""
    return [
        PredictionRow(image, f.class_id, f.rle, f.area, f.confidence, f.alarm, f.area_mm2)
        for f in findings
    ]


def report(
    rows: Sequence[PredictionRow], n_images: int, classes: Sequence[int]
) -> dict[str, float]:
    """Count the images that are predicted to show each class, and their share of all."""
    shown = [row.class_id for row in rows if row.rle]
    counts = {f"images_class_{c}": shown.count(c) for c in classes}
    shares = {f"share_class_{c}": shown.count(c) / max(n_images, 1) for c in classes}
    return {"test_images": n_images, **counts, **shares}
