"""What README and docs tell people to type is accepted, and what they link to is there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from steelseg.__main__ import COMMANDS
from steelseg.check.known_params import refuse_unknown
from steelseg.check.values import refuse_bad_values
from steelseg.core.params import load
from steelseg.model.card import ModelConfig
from steelseg.train.auto import TrainParams

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("data", "models")]


def blocks(language: str) -> Iterator[str]:
    """Yield the code blocks of all pages that are in one language."""
    for page in PAGES:
        yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def commands(first: str) -> list[list[str]]:
    """List the words of every command that begins so, without variables and comments."""
    found: dict[str, list[str]] = {}
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"^([A-Z_]+=\S+ )+", "", line)
            if command.startswith(f"{first} "):
                words = shlex.split(command, comments=True)
                found[shlex.join(words)] = words
    return list(found.values())


def overrides(words: list[str]) -> list[str]:
    return [word for flag, word in pairwise(words) if flag == "-S"]


def kfold_words() -> Iterator[list[str]]:
    for words in commands("make kfold"):
        yield from (shlex.split(word.removeprefix("ARGS=")) for word in words[2:])


def inline() -> Iterator[list[str]]:
    """Yield the overrides that stand in the text, as `-S ...`."""
    for page in PAGES:
        for span in re.findall(r"`(-S [^`]+)`", page.read_text()):
            yield shlex.split(span)


EXPERIMENTS = [*commands("dvc exp run"), *kfold_words(), *inline()]
OVERRIDES = list(dict.fromkeys(tuple(w) for words in EXPERIMENTS if (w := overrides(words))))


@pytest.mark.parametrize("given", OVERRIDES, ids=" ".join)
def test_every_override_is_accepted(given: tuple[str, ...], tmp_path: Path) -> None:
    """By what checks params.yaml before any stage runs; of a grid, its first experiment."""
    named = [re.sub(r"=<.*>$", "=mine", override) for override in given]
    first = next(iter(get_hydra_sweeps({"params.yaml": named})))["params.yaml"]
    # neither the hub nor the file or member that a person would have is here
    absent = {"encoder_weights": "null", "ensemble": "[]"}
    names = {override.partition("=")[0] for override in first}
    mended = [f"{name}={value}" for name, value in absent.items() if name in names]
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(params, [*first, *mended])
    refuse_unknown(params, ROOT / "dvc.yaml")
    # as after `make repro`: what the sample ran with is accepted, what is changed is tried
    refuse_bad_values(params, ROOT / "dvc.yaml", ROOT / "dvc.lock")


def test_the_notebooks_recipe_for_severstal(tmp_path: Path) -> None:
    """Its optimizer, batch, schedule, network and loss, in what the stages are given."""
    (words,) = [w for w in commands("dvc exp run") if {"dataset=severstal", "loss=bce"} <= {*w}]
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(params, overrides(words))
    train, network = load(TrainParams, "train", params), load(ModelConfig, path=params)
    assert (train.optimizer, train.lr, train.loss) == ("adam", 5e-4, "bce")
    assert train.batch_size * train.accumulate == 32
    assert (train.epochs, train.scheduler, train.crop) == (20, "plateau", None)
    assert [list(entry) for entry in train.augment] == [["HorizontalFlip"]]
    assert (network.arch, network.encoder, network.encoder_weights) == (
        "Unet",
        "resnet18",
        "imagenet",
    )
    assert network.arch_options == {"decoder_channels": [256, 128, 64, 32, 16]}


@pytest.mark.parametrize("words", commands("dvc"), ids=" ".join)
def test_dvc_has_the_commands_and_options(words: list[str]) -> None:
    """By its own parser; nothing is run."""
    parse_args(words[1:])


@pytest.mark.parametrize("words", commands("python -m steelseg"), ids=" ".join)
def test_steelseg_has_the_commands_and_options(words: list[str]) -> None:
    """By the command's own parser; nothing is run."""
    parser = ArgumentParser()
    import_module(f"steelseg.{COMMANDS[words[3]][0]}").command(parser)
    parser.parse_args(words[4:])


def test_make_has_the_targets() -> None:
    """Those in code blocks and those in the text."""
    named = {words[1] for words in commands("make")}
    for page in PAGES:
        named |= set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"repro", "test"} <= named <= targets


def test_links_lead_somewhere() -> None:
    """Those within the repository: pages, pictures and result files."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


def test_every_page_is_linked_from_the_readme() -> None:
    """A page that nobody finds helps nobody."""
    linked = set(re.findall(r"\]\((docs/\w[\w-]*\.md)", (ROOT / "README.md").read_text()))
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def test_the_readme_reads_in_two_minutes() -> None:
    """Details belong to docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_paths_in_contributing_are_there() -> None:
    """It tells a newcomer where to look."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:src|tests|stages|benchmarks|docs)/[\w/.-]*)`", text)
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]
    packages = {f"src/steelseg/{p.parent.name}" for p in (ROOT / "src/steelseg").glob("*/*.py")}
    assert packages <= set(paths)


@pytest.mark.parametrize("block", list(blocks("python")))
def test_python_examples_run(
    block: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """As they stand, beside a folder `models` and an image."""
    import cv2

    shutil.copytree(tiny_model, tmp_path / "models")
    image = cv2.imread(str(tiny_dataset / "test_images" / "0012.png"))
    cv2.imwrite(str(tmp_path / "plate.jpg"), image)
    ran = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) >= 2  # a line for each of the model's classes


def test_dvc_may_track_the_raw_data() -> None:
    """`dvc add data/raw/severstal` writes a file that git must not ignore."""
    path = "data/raw/severstal.dvc"
    ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
    assert ignored.returncode == 1
