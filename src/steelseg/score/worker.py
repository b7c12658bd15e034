"""Scoring of one share of the images: read, network, post-processing, rows; engines schedule it."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_json
from steelseg.data.images import GreyImage, decode_grey
from steelseg.predict.ensemble import member_folders, open_ensemble
from steelseg.predict.inference import ahead, probability_maps
from steelseg.predict.postprocess import postprocess
from steelseg.predict.rules import Rules, read_rules
from steelseg.predict.submission import PredictionRow
from steelseg.score.store import Place, ScoreStore, read_bytes

BATCHES = 16  # that are in memory, so that the network can be given several at once
READERS = 8  # images that are read at once: an object store answers late, but many at a time


class ScoringJob(NamedTuple):
    """What every worker is told; all of it can be sent to another machine."""

    images_folder: Place
    out: Place
    version: str
    model: Path
    runtime: str
    batch_size: int
    threads: int | None
    """of a worker's network; None for all there are"""


class Tally(NamedTuple):
    """How many images were scored, and how many were not."""

    scored: int
    failed: int


def folders_of(model: Path) -> list[Path]:
    """Find the models that answer together for a model's folder: its own first, then members."""
    return member_folders(model, _rules_of(model).views.ensemble)


def _rules_of(model: Path) -> Rules:
    weights = read_sealed_json(model / "model.json")["weights_sha256"]
    return read_rules(model / "postprocess.json", weights)


class Scorer:
    """A worker: holds the network, and turns shares of the images into files of rows."""

    def __init__(self, job: ScoringJob) -> None:
        """Load the network and the tuned rules.

        Raises:
            BadInput: the model is missing or damaged.
        """
        self.job = job
        self.rules, _, views = _rules_of(job.model)
        self.runtime = open_ensemble(job.model, views, job.runtime, job.threads, many=True)
        self.store = ScoreStore(job.out, job.version)

    def score(self, images: Sequence[str]) -> Tally:
        """Score images and write what became of them, all at once."""
        errors: dict[str, str] = {}
        rows = [row for some in self._of_one_size(images, errors) for row in self._rows(some)]
        self.store.write(images, rows, errors)
        return Tally(len(images) - len(errors), len(errors))

    def _of_one_size(
        self, images: Sequence[str], errors: dict[str, str]
    ) -> Iterator[list[tuple[str, GreyImage]]]:
        """Yield neighbouring images of one size, some batches; note those that are unsound."""
        sound = self._sound(images, errors)
        for _, of_one_size in groupby(sound, lambda item: item[1].shape):
            while some := list(islice(of_one_size, BATCHES * self.job.batch_size)):
                yield some

    def _sound(
        self, images: Sequence[str], errors: dict[str, str]
    ) -> Iterator[tuple[str, GreyImage]]:
        for image, found in _read_ahead(self.job.images_folder, images):
            if isinstance(found, BadInput):
                errors[image] = str(found)
            else:
                yield image, found

    def _rows(self, some: list[tuple[str, GreyImage]]) -> Iterator[PredictionRow]:
        maps = probability_maps(some, lambda item: item[1], self.runtime, self.job.batch_size)
        for (image, _), maps_chw in maps:
            for (class_id, rule), probability_hw in zip(self.rules.items(), maps_chw, strict=True):
                yield PredictionRow(image, class_id, *postprocess(probability_hw, rule))


def _read_ahead(folder: Place, images: Sequence[str]) -> Iterator[tuple[str, GreyImage | BadInput]]:
    """Decode images in their order, some ahead of the one that is asked for."""

    def decode(image: str) -> GreyImage | BadInput:
        try:
            return decode_grey(read_bytes(folder, image))
        except BadInput as error:
            return error

    yield from zip(images, ahead(images, decode, READERS), strict=True)
