"""The plan of a k-fold training, and its table."""

from pathlib import Path

import pytest

from steelseg.__main__ import main
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


def test_another_seed_changes_nothing_but_the_training() -> None:
    """It replaces the seed that was given, and the split stays."""
    planned = kfold.plan(2, ["seed=5", "stratified_split.seed=4"], 6)
    assert planned[1].overrides == ("stratified_split.seed=4", "ensemble=[]", "seed=6", "fold=1")


def test_the_table_of_seeds_says_what_is_luck() -> None:
    """Two seeds whose means differ by 0.02: 12.706 times the root of 2 times their deviation."""
    lines = list(kfold.seed_table({69: [0.80, 0.90], 70: [0.84, 0.90]}))
    assert [line.split()[:2] for line in lines[1:3]] == [["69", "0.8500"], ["70", "0.8700"]]
    assert lines[3].startswith("mean   0.8600 ± 0.0141")
    mean, alone = 12.7062 * 0.02, 4.30265 * 0.04 / 2**0.5  # of one fold: two degrees of freedom
    assert f"the mean by up to {mean:.4f}" in lines[4]
    assert f"one fold by up to {alone:.4f}" in lines[4]


def test_all_seeds_are_trained_and_the_first_predicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first seed's experiments are those of a run without --seeds, and are not repeated."""
    split = "{n_folds: 2, seed: 4, never_validate: null, group_by: null, test_share: 0}"
    Path("params.yaml").write_text(f"seed: 69\nfold: 0\nstratified_split: {split}\n")
    first, second = kfold.plan(2, []), kfold.plan(2, [], 70)
    done, collected, together = [*first], [], []
    score = {"pair_dice": 0.8, "all_empty_pair_dice": 0.6}
    monkeypatch.setattr(kfold, "_scores", lambda e: score if e in done else None)
    monkeypatch.setattr(kfold, "run_queued", lambda missing, *_: done.extend(missing))
    monkeypatch.setattr(kfold, "_collect", lambda e: collected.append(e) or "0123456789ab")
    monkeypatch.setattr(kfold, "run_here", lambda e: together.append(e))
    monkeypatch.setattr(kfold, "read_json", lambda _: score)
    with pytest.raises(SystemExit, match=r"--seeds 0.*expected 1 or more"):
        main(["kfold", "--seeds", "0"])
    main(["kfold", "--seeds", "2"])
    assert done == [*first, *second]
    assert collected == first[1:]
    assert together[0].overrides == ("ensemble=[0123456789ab]", "fold=0")
    said = capsys.readouterr().out
    assert said.startswith("2 of 4 folds are trained")
    assert "69     0.8000\n70     0.8000\n" in said
    main(["kfold"])
    assert "seed" not in capsys.readouterr().out
