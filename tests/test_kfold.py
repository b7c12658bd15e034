"""The plan of a k-fold training, and its table."""

from pathlib import Path

import pytest

from steelseg.core.errors import BadInput
from steelseg.experiments import kfold
from steelseg.experiments.queue import named


@pytest.fixture(autouse=True)
def in_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder with params.yaml and code."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("lr: 1\nfold: 0\nensemble: []\ntrain: {augment: []}\n")
    Path("dvc.yaml").write_text("stages: {}\n")


def test_every_fold_is_an_experiment_of_its_own() -> None:
    """With the overrides that were given, and without an ensemble that was applied before."""
    planned = kfold.plan(3, ["lr=2"])
    assert [e.overrides for e in planned] == [
        ("lr=2", "ensemble=[]", f"fold={fold}") for fold in range(3)
    ]
    assert len({e.name for e in planned}) == 3


def test_an_applied_experiment_does_not_change_the_names() -> None:
    """Its values stand in params.yaml then; another parameter there makes other experiments."""
    before = kfold.plan(2, ["lr=2", "train.augment=[]"])
    params = "lr: 2\nfold: 1\nensemble: [0123456789ab]\ntrain: {augment: [x]}\n"
    Path("params.yaml").write_text(params)
    assert kfold.plan(2, ["lr=2", "train.augment=[]"]) == before
    Path("params.yaml").write_text(f"{params}seed: 3\n")
    assert not set(kfold.plan(2, ["lr=2", "train.augment=[]"])) & set(before)


def test_names_tell_overrides_apart() -> None:
    """A value, and the section that it stands in."""
    names = {named("x", [o]).name for o in ("lr=2", "lr=3", "train.lr=3", "train.seed=3")}
    assert len(names) == 4


def test_a_value_has_no_keys() -> None:
    """`loss.dice=0` where params.yaml has `loss: bce`."""
    with pytest.raises(BadInput, match=r"lr\.x=2: `lr` is 1 in params\.yaml"):
        named("x", ["lr.x=2"])


@pytest.mark.parametrize("override", ["fold=1", "ensemble=[0123456789ab]"])
def test_what_the_command_sets_cannot_be_overridden(override: str) -> None:
    """The message names it."""
    with pytest.raises(BadInput, match="set by this command"):
        kfold.plan(2, [override])


def test_the_table_has_mean_and_spread() -> None:
    """0.8 and 0.9: mean 0.85, standard deviation 0.0707; and all images out of fold."""
    folds = {k: {"pair_dice": 0.8 + k / 10, "all_empty_pair_dice": 0.6} for k in range(2)}
    lines = list(kfold.table(folds, {"pair_dice": 0.86, "all_empty_pair_dice": 0.6}))
    assert lines[1].split() == ["0", "0.8000", "0.6000"]
    assert lines[3].startswith("mean   0.8500 ± 0.0707")
    assert lines[4].startswith("all    0.8600")
