"""Fixtures that several test files share."""

import fcntl
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clones import finished
from hypothesis import settings
from strategies import pivoted, write_project

from steelseg.core.arrays import Uint8
from steelseg.core.pixels import GREY
from steelseg.data import cache_writer, ignored, rle
from steelseg.data.cache import Cache
from steelseg.data.decoding import read

REPOSITORY = Path(__file__).parents[1]
Once = Callable[[str, Callable[[Path], object]], Path]

if not os.environ.get("STEELSEG_TEST_GPU"):  # most tests compare with what a CPU computes
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
cv2.setNumThreads(1)
# how long an example takes is up to what else the machine does; a hang is found by the run's limit
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


# the files that take longest, the longest first; the others take some seconds each
LONGEST = ("faults", "pipeline", "benchmarks", "tracking", "scoring", "distributed", "ui", "demo")
LONGEST += ("training", "fake_cuda", "raw_data", "readme", "any_mill", "trial", "models", "serving")
LONGEST += ("tracking_server", "training_switches", "fuzz", "ensemble", "synthetic", "bad_input")
LONGEST += ("check_params", "near_duplicates", "report")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files where processes share them out, so that none works on alone."""
    if hasattr(config, "workerinput"):
        ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that is no part of the repository."""
    folder = Path(os.environ.get("STEELSEG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set STEELSEG_DATA)")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What makes a folder once in a run of tests, whichever of its processes needs it first."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = root / name, root / f"{name}.made"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                make(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Path:
    """A database of MLflow without runs, to be copied: making one takes seconds."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow and SQLAlchemy have some of their own
            MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return once("store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def pipeline(once: Once) -> Path:
    """A clone in which `dvc repro` has run, untracked."""
    return once("pipeline", lambda f: finished(f, "dvc", "repro", STEELSEG_TRACKING="off"))


@pytest.fixture(scope="session")
def experiment(once: Once, empty_store: Path) -> Path:
    """A clone in which an experiment of the name `by-hand` has run the same; do not change it.

    Its learning rate is given, as the number that `auto` chooses.
    """
    command = ["dvc", "exp", "run", "-n", "by-hand", "-S", "lr=2e-3"]
    return once("experiment", lambda folder: finished(folder, *command, store=empty_store))


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sound data set, in a project that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compare what we compute, not how threads of a busy machine share out a sum."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def draw_dataset(root: Path, n_images: int = 12, size_hw: tuple[int, int] = (48, 80)) -> Path:
    """Write a data set of noise with bright squares (class 1) and dark bars (class 2)."""
    rng = np.random.default_rng(7)
    (root / "train_images").mkdir(parents=True)
    (root / "test_images").mkdir()
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(n_images + 3):
        image = rng.integers(90, 140, size_hw).astype(np.uint8)
        masks = {}
        if i % 3 == 0:
            masks[1] = _paint(image, rng, (16, 16), 250)
        if i % 4 == 0:
            masks[2] = _paint(image, rng, (30, 6), 5)
        training = i < n_images
        folder = "train_images" if training else "test_images"
        cv2.imwrite(str(root / folder / f"{i:04d}.png"), image)
        if training:
            rows += [f"{i:04d}.png,{c},{rle.encode(m)}" for c, m in sorted(masks.items())]
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    pairs = [f"{i:04d}.png_{c},1 1" for i in range(n_images, n_images + 3) for c in (1, 2)]
    sample = "\n".join(["ImageId_ClassId,EncodedPixels", *pairs]) + "\n"
    (root / "sample_submission.csv").write_text(sample)
    return root


def _paint(
    image: np.ndarray, rng: np.random.Generator, shape_hw: tuple[int, int], grey: int
) -> np.ndarray:
    top, left = (int(rng.integers(s - w)) for s, w in zip(image.shape, shape_hw, strict=True))
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[top : top + shape_hw[0], left : left + shape_hw[1]] = 1
    image[mask == 1] = grey
    return mask


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and three test images of 48x80 with two classes."""
    return draw_dataset(tmp_path_factory.mktemp("raw") / "tiny")


@pytest.fixture(scope="session")
def tiny_cache(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The cache of `tiny_dataset`, in shards of five."""
    table, _ = pivoted(tiny_dataset)
    folder = tmp_path_factory.mktemp("cache")
    for _ in cache_writer.write(folder, tiny_dataset / "train_images", table, 5):
        pass
    return Cache(folder)


@pytest.fixture(scope="session")
def ignored_cache(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The cache of `tiny_dataset`, where a rectangle of every image but the last is ignored."""
    table, inspection = pivoted(tiny_dataset)
    folder = tmp_path_factory.mktemp("ignored")
    lines, rng = ["ImageId,EncodedPixels"], np.random.default_rng(8)
    for name in table.names[:-1]:
        region = np.zeros((48, 80), dtype=np.uint8)
        top, left = rng.integers((20, 40))
        region[top : top + 25, left : left + 30] = 1
        lines.append(f"{name},{rle.encode(region)}")
    (folder / ignored.FILE).write_text("\n".join(lines))
    table, _ = ignored.mark(table, folder / ignored.FILE, inspection)
    for _ in cache_writer.write(folder, tiny_dataset / "train_images", table, 5):
        pass
    return Cache(folder)


@pytest.fixture(scope="session")
def tiny_model(tiny_dataset: Path, once: Once) -> Path:
    """A network that nobody trained, with its ONNX export and rules: a folder like `models`.

    Do not change it. Its head is scaled so that its two probability maps of noise are neither flat
    nor all 0 or 1.
    """
    image_hw = read(tiny_dataset / "test_images" / "0012.png", GREY).image[:32, :64]
    return once("model", lambda folder: make_model(folder, image_hw))


def make_model(folder: Path, image_hw: Uint8) -> None:
    """Write a model, with an export, whose answers to an image vary."""
    import torch
    from saved_models import save_model

    from steelseg.export import onnx
    from steelseg.model import network
    from steelseg.model.card import EXPORT, ModelConfig, read_card
    from steelseg.predict.postprocess import ClassRule
    from steelseg.predict.rules import Rules, write_rules

    folder.mkdir()
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    config = ModelConfig(
        arch="Unet", encoder="resnet18", encoder_weights=None, arch_options=options
    )
    torch.manual_seed(7)
    segmenter = network.build(config, 2, mean=[0.45], std=[0.1]).eval()
    with torch.inference_mode():
        logits = segmenter(torch.from_numpy(image_hw.copy())[None, None])
        head = segmenter.network.segmentation_head[0]
        head.weight *= 2 / logits.std()
        head.bias -= (logits.mean() - head.bias) * 2 / logits.std() + head.bias
    save_model(folder, segmenter, config)
    onnx.export(segmenter, folder / EXPORT)
    rule = ClassRule(threshold=0.5, min_component_area=3)
    write_rules(folder, Rules({1: rule, 2: rule}, read_card(folder).weights_sha256))
