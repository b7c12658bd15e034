"""What the README tells people to type is accepted."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from steelseg.core.params import load
from steelseg.model.card import ModelConfig
from steelseg.train.auto import TrainParams
from steelseg.tune.search import TuneConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """The words of every `dvc exp run` in a code block, comments left out."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith("dvc exp run")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_override_is_accepted(command: list[str], tmp_path: Path) -> None:
    """The params that a `-S` line makes are legal for the stages that read them."""
    overrides = [command[i + 1] for i, word in enumerate(command) if word == "-S"]
    overrides = [re.sub(r"^(\w+=[^,\[{]+),.*", r"\1", override) for override in overrides]  # a grid
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(params, overrides)
    load(ModelConfig, path=params)
    load(TrainParams, "train", params)
    load(TuneConfig, "tune_threshold", params)


def test_the_severstal_recipe_is_the_notebooks(tmp_path: Path) -> None:
    """Its optimizer, batch, schedule, network and loss, in what the stages are given."""
    (command,) = [c for c in commands() if "dataset=severstal" in c]
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(params, [command[i + 1] for i, word in enumerate(command) if word == "-S"])
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


def test_dvc_may_track_the_raw_data() -> None:
    """`dvc add data/raw/severstal` writes a file that git must not ignore."""
    path = "data/raw/severstal.dvc"
    ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
    assert ignored.returncode == 1


def test_files_named_in_the_tree_are_there() -> None:
    """Every module of the library is in the README's tree, and the other way round."""
    tree = README.split("## What is where")[1].split("## When")[0]
    patterns = re.findall(r"[\w*]+\.py", tree)
    named = {p.name for pattern in patterns for p in (ROOT / "src/steelseg").glob(pattern)}
    there = {p.name for p in (ROOT / "src/steelseg").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert named == there
    assert all(list((ROOT / "src/steelseg").glob(pattern)) for pattern in patterns)
