"""Scoring of one share of the images, from reading to rows; run by an engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from steelseg.core.arrays import Pixels
from steelseg.core.errors import BadInput
from steelseg.data.decoding import decode
from steelseg.data.images import size_of
from steelseg.predict.inference import InferenceConfig, ahead
from steelseg.predict.model import Model
from steelseg.predict.parts import rows_of
from steelseg.predict.predictions import PredictionRow
from steelseg.predict.tiles import is_large
from steelseg.score.source import read_bytes
from steelseg.score.store import Place, ScoreStore

READERS = 8  # images read at once: object stores have high latency, but serve many requests


class ScoringJob(NamedTuple):
    """The arguments of a worker; all of them can be sent to another machine."""

    images_folder: Place
    out: Place
    version: str
    model: Path
    inference: InferenceConfig
    threads: int | None
    """per worker, for its network; None for all cores"""


class Tally(NamedTuple):
    """How many images were scored, and how many failed."""

    scored: int
    failed: int


class Scorer:
    """A worker: holds the model and turns shares of the images into files of rows."""

    def __init__(self, job: ScoringJob) -> None:
        """Open the model.

        Raises:
            BadInput: the model is missing or damaged.
        """
        self.folder = job.images_folder
        self.model = Model(job.model, job.version, job.inference, job.threads)
        self.store = ScoreStore(job.out, job.version)

    def score(self, images: Sequence[str]) -> Tally:
        """Score images and write their rows and errors, all at once."""
        rows: list[PredictionRow] = []
        errors: dict[str, str] = {}
        for (image, _), findings in self.model.outcomes(self._read_ahead(images), self._sound):
            if isinstance(findings, BadInput):
                errors[image] = str(findings)
            else:
                rows += rows_of(image, findings)
        class_names = {one.id: one.name for one in self.model.class_infos}
        self.store.write(images, rows, errors, class_names)
        return Tally(len(images) - len(errors), len(errors))

    def _read_ahead(self, images: Sequence[str]) -> Iterator[tuple[str, Pixels | bytes | BadInput]]:
        """Yield decoded images in order, several read ahead.

        Large ones are only read ahead, not decoded, since several might not fit into memory.
        """

        def read(image: str) -> Pixels | bytes | BadInput:
            try:
                data = read_bytes(self.folder, image)
                return data if is_large(size_of(data)) else decode(data, self.model.card.pixels)
            except BadInput as error:
                return error

        yield from zip(images, ahead(images, read, READERS), strict=True)

    def _sound(self, item: tuple[str, Pixels | bytes | BadInput]) -> Pixels:
        _, image = item
        if isinstance(image, BadInput):
            raise image
        return decode(image, self.model.card.pixels) if isinstance(image, bytes) else image
