"""The model for users: one object, from images to findings.

>>> import steelseg
>>> model = steelseg.Model.open("models")
>>> for finding in model.predict("plate.jpg"):
...     print(finding.class_name, finding.area, finding.confidence)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np

from steelseg.core.arrays import Float32, Pixels, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, quote
from steelseg.core.files import sha256
from steelseg.core.pixels import COLOURS, Levels, PixelFormat
from steelseg.data import rle
from steelseg.data.decoding import decode, fit_channels, read
from steelseg.model.card import CARD, Card, read_card
from steelseg.predict.ensemble import files_of, member_folders
from steelseg.predict.inference import (
    InferenceConfig,
    Runtime,
    answers,
    open_models,
    resolve_runtime,
)
from steelseg.predict.postprocess import ClassRule, postprocess_maps
from steelseg.predict.rules import Rules, compare, read_rules
from steelseg.predict.tiles import Maps, as_maps

T = TypeVar("T")
R = TypeVar("R")
Image = Path | str | bytes | Levels
"""A path, the bytes of an image file, or its levels: an array (H, W) or (H, W, N)."""


class Finding(NamedTuple):
    """One class of one image: its mask, and how sure the model is that the image shows the class.

    `rle` is empty if nothing was found; `area` is in pixels; `class_name` is `class 3` if the class
    has no name. `confidence` is the calibrated probability that the image shows the
    class: of those near 0.7, seven in ten do. `raw_confidence` is the highest probability of any
    pixel, which the rules' `gate` is compared with. `alarm` is whether the class makes the image an
    alarm; it follows from `confidence` alone, so there are alarms without a mask and masks without
    an alarm. A model that was tuned before there were verdicts has the raw confidence for both, and
    None for `alarm`. `area_mm2` is None unless the model was tuned with `mm_per_pixel`.
    """

    class_id: int
    rle: str
    area: int
    confidence: float
    size_hw: tuple[int, int]
    class_name: str
    raw_confidence: float
    alarm: bool | None = None
    area_mm2: float | None = None

    @property
    def mask(self) -> Uint8:
        """The mask, (H, W) uint8 of 0 and 1."""
        return rle.decode(self.rle, self.size_hw)


class Model:
    """A network, its card, its tuned rules and the runtime that runs it.

    Attributes:
        folder: its path.
        version: of the registered model, or the first digits of its weights' checksum.
        card: what it is and what it was trained on.
        rules: the tuned rule of each class, and the views that they are valid for.
        folders: of all models of the ensemble, its own first.
    """

    def __init__(
        self,
        folder: Path,
        version: str | None = None,
        inference: InferenceConfig | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the model of a folder; see `Model.open`."""
        if not (folder / CARD).is_file():
            raise BadInput(f"{folder}: expected the folder of a model; `make repro` trains one")
        self.folder = folder
        self.card: Card = read_card(folder)
        self.version = version or self.card.name
        self.rules: Rules = read_rules(folder, self.card)
        self.folders = member_folders(folder, self.rules.views.ensemble)
        self._inference = inference or InferenceConfig()
        self._threads = threads
        self._runtimes: dict[bool, Runtime] = {}

    @classmethod
    def open(
        cls,
        where: str | Path = "models",
        *,
        inference: InferenceConfig | None = None,
        threads: int | None = None,
    ) -> Self:
        """Open a model.

        Args:
            where: its folder, or an address in MLflow: `models:/steelseg@champion`,
                `models:/steelseg/3`, `runs:/<run id>/model`.
            inference: the runtime and the batch size; both are `auto` otherwise.
            threads: to use on a CPU; None for all.

        Raises:
            BadInput: there is no model, a file is damaged, or the files are of different models.
            SteelsegError: MLflow's registry cannot be reached.
        """
        from steelseg.registry.find import find_model

        found = find_model(where)
        return cls(found.folder, found.version, inference, threads)

    @property
    def classes(self) -> list[int]:
        """The class ids, in channel order."""
        return self.card.classes

    @property
    def class_infos(self) -> list[ClassInfo]:
        """The classes with their names and colours, in channel order."""
        return self.card.named_classes

    @property
    def files(self) -> dict[str, Path]:
        """All files that it uses, by their paths in one folder for a copy elsewhere."""
        return files_of(self.folders)

    @property
    def identity(self) -> dict[str, str]:
        """Everything that its answers depend on: the checksums of its files, and the runtime."""
        digests = {name: sha256(path) for name, path in self.files.items()}
        return digests | {"runtime": resolve_runtime(self._inference.runtime, self.folders)}

    def predict(self, image: Image) -> list[Finding]:
        """Find the defects of an image: one finding per class, in channel order.

        Raises:
            BadInput: the image cannot be read.
        """
        ((_, found),) = self.outcomes([image], self.read, many=False)
        if isinstance(found, BadInput):
            raise found
        return found

    def predict_many(self, images: Iterable[Image]) -> Iterator[list[Finding]]:
        """Yield the result of `predict` for each of any number of images, in order.

        Several images are read and processed concurrently, and none is kept.

        Raises:
            BadInput: an image cannot be read.
        """
        for _, outcome in self.outcomes(images, self.read):
            if isinstance(outcome, BadInput):
                raise outcome
            yield outcome

    def outcomes(
        self, items: Iterable[T], read: Callable[[T], Pixels], *, many: bool = True
    ) -> Iterator[tuple[T, list[Finding] | BadInput]]:
        """Yield every item with its findings, or with the reason why it cannot be read.

        Args:
            items: of any type.
            read: turns an item into pixels, like the method `read`; called on other threads.
            many: see `runtime`.
        """
        return answers(items, read, self.runtime(many=many), lambda _, maps: self.findings(maps))

    @staticmethod
    def in_order(findings: Iterable[Finding]) -> bool | None:
        """Whether none of an image's findings, or of a group's images', is an alarm.

        None if the model has no verdicts.
        """
        alarms = [one.alarm for one in findings]
        return None if None in alarms else not any(alarms)

    def probabilities(self, image: Image) -> Float32:
        """Return an image's probability maps, (C, H, W) float32 in channel order.

        All of them are in memory at once, however large the image; `predict` holds only a part.

        Raises:
            BadInput: the image cannot be read.
        """
        runtime = self.runtime(many=False)
        ((_, maps_chw),) = answers([image], self.read, runtime, lambda _, maps: maps.whole())
        if isinstance(maps_chw, BadInput):
            raise maps_chw
        return maps_chw

    def read(self, image: Image) -> Pixels:
        """Turn an image into the network's input; see `to_pixels`.

        Raises:
            BadInput: it cannot be read.
        """
        return to_pixels(image, self.card.pixels)

    def findings(
        self, maps: Maps | Float32, rules: Mapping[int, ClassRule] | None = None
    ) -> list[Finding]:
        """Turn probability maps, or an array (C, H, W) of them, into findings.

        By the tuned rules, or by others.
        """
        maps = as_maps(maps) if isinstance(maps, np.ndarray) else maps
        by_class, classes = rules or self.rules.by_class, self.class_infos
        found = postprocess_maps(maps, [by_class[one.id] for one in classes])
        raw = [one.confidence for one in found]
        sure = raw
        alarms: list[bool | None] = [None] * len(raw)
        if verdicts := self.rules.verdicts:
            sure, alarms = verdicts.confidences(raw).tolist(), verdicts.is_alarm(raw).tolist()
        scale = self.rules.mm_per_pixel
        areas = [f.area * scale**2 if scale else None for f in found]
        return [
            Finding(one.id, f.rle, f.area, p, maps.size_hw, one.name, f.confidence, alarm, mm2)
            for one, f, p, alarm, mm2 in zip(classes, found, sure, alarms, areas, strict=True)
        ]

    def runtime(self, *, many: bool) -> Runtime:
        """Return the networks, which are opened on first use.

        With `many`, several images are processed concurrently by few threads each; otherwise all
        threads work on one. A warning is logged if they answer differently from when the rules were
        tuned.
        """
        if many not in self._runtimes:
            inference, views = self._inference, self.rules.views
            opened = open_models(self.folders, inference, views, threads=self._threads, many=many)
            if self.rules.probe:
                compare(self.rules.probe, opened.network, self.folder)
            self._runtimes[many] = opened
        return self._runtimes[many]


def to_pixels(image: Image, pixels: PixelFormat) -> Pixels:
    """Turn an image into the network's input, (H, W) or (N, H, W) uint8 or uint16.

    Arrays have the levels of the files, channels last, and are scaled like the files.

    Raises:
        BadInput: it cannot be read, or is an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return read(Path(image), pixels).image
    if isinstance(image, bytes):
        return decode(image, pixels)
    if not isinstance(image, np.ndarray):
        raise BadInput(f"expected a path, bytes or an array, but got {quote(image)}")
    kinds = {8: ["uint8"], 16: ["uint16"], 32: ["float32", "float64"]}[pixels.depth]
    known = {pixels.channels} | ({1, COLOURS} if pixels.channels in (1, COLOURS) else set())
    fits = (image.ndim == 2 and 1 in known) or (image.ndim == 3 and image.shape[2] in known)
    if not fits or str(image.dtype) not in kinds or not image.size:
        shapes = "(H, W)" if pixels.channels == 1 else f"(H, W, {pixels.channels})"
        raise BadInput(
            f"expected levels of shape {shapes} and {' or '.join(kinds)}, but got {image.shape} "
            f"{image.dtype}"
        )
    planes = image[..., 0] if image.ndim > 2 and image.shape[2] == 1 else image
    levels = np.moveaxis(planes, -1, 0) if planes.ndim > 2 else planes
    return np.ascontiguousarray(pixels.scale(fit_channels(levels, pixels.channels)))
