"""Differences of two models are told from luck, image by image."""

import numpy as np
import pytest
from tables import validation_table, write_table

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.experiments import compare as experiments_compare
from steelseg.experiments.compare import compare, compare_tables


def draw(gain, n=120, seed=0):
    """Dice of two models on images of 30 coils: hard and easy ones, and the second is better."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 4
    hard = rng.uniform(0.3, 0.8, (n, 1)) * np.ones((n, 2))
    luck = rng.normal(0, 0.05, (30, 2))[groups] + rng.normal(0, 0.05, (n, 2))
    return [f"{i}.png" for i in range(n)], groups, hard, np.clip(hard + gain + luck, 0, 1)


def test_a_gain_is_seen_and_luck_is_not():
    """Paired, a gain of 0.05 shows although images differ by ten times as much."""
    names, groups, first, second = draw(0.05)
    compared = compare(names, [1, 3], groups, first, second)
    assert compared.verdict == "better"
    assert compared.overall.low < (second - first).mean() < compared.overall.high
    assert list(compared.by_class) == [1, 3]
    assert compare(names, [1, 3], groups, second, first).verdict == "worse"
    _, _, first, second = draw(0.0)
    assert compare(names, [1, 3], groups, first, second).verdict == "within noise"


def test_images_that_share_their_luck_say_less():
    """The interval over coils is wider than one that takes images for independent."""
    names, groups, first, second = draw(0.02)
    over_groups = compare(names, [1, 3], groups, first, second).overall
    naive = compare(names, [1, 3], np.arange(120), first, second).overall
    assert over_groups.high - over_groups.low > 1.3 * (naive.high - naive.low)


def test_images_by_how_much_they_changed():
    """Better ones the best first, worse ones the worst first; what is equal is neither."""
    first = np.array([[0.5], [0.5], [0.5], [0.5], [0.5]])
    second = np.array([[0.6], [0.1], [0.5], [0.9], [0.4]])
    compared = compare(list("abcde"), [1], np.arange(5), first, second)
    assert compared.better == ["d", "a"]
    assert compared.worse == ["b", "e"]
    assert compared.overall.value == pytest.approx(0)
    assert compare(["a"], [1], [0], first[:1], second[:1]).verdict == "within noise"


def test_equal_models_do_not_differ():
    """The difference of a model from itself is 0, and known to be."""
    first = np.array([[0.5], [0.7]])
    compared = compare(["a", "b"], [1], [0, 1], first, first)
    assert compared.overall == (0, 0, 0)
    assert compared.verdict == "within noise"


def test_other_images_are_refused():
    """Only the same images can be compared."""
    with pytest.raises(BadInput, match="the same 2 images"):
        compare(["a", "b"], [1], [0, 1], np.ones((2, 1)), np.ones((3, 1)))


def test_tables_are_compared_on_the_images_of_both():
    """By cross-fitted counts and the groups of the table; others do not count."""
    first = validation_table({"a": [4, 9], "b": [4, 4], "c": [0, 0], "e": [0, 0]})
    second = validation_table({"c": [5, 0], "b": [4, 4], "a": [9, 9], "d": [0, 0]})
    found = compare_tables(first, second)
    assert (found.n_images, found.n_groups) == (3, 3)
    assert (found.better, found.worse) == (["c", "a"], [])
    assert found.overall.value == pytest.approx((5 / 10 + 9 / 10 - 4 / 10) / 6)
    assert [e.value for e in found.by_class.values()] == [pytest.approx(1 / 3), 0]
    with pytest.raises(BadInput, match="no image was validated by both"):
        compare_tables(first, validation_table({"z": [1, 1]}))
    with pytest.raises(BadInput, match=r"same classes, but got \[1, 2\] and \[1\]"):
        compare_tables(first, validation_table({"a": [1]}))
    with pytest.raises(BadInput, match="different annotations"):
        compare_tables(first, first.assign(true=7))


def test_runs_are_compared_by_their_folders(tmp_path, capsys):
    """What is printed, and what a folder without a run is told."""
    for name, hits in {"one": 4, "two": 6}.items():
        (tmp_path / name / "data").mkdir(parents=True)
        table = {f"{i}.png": [hits, 9] for i in range(6)}
        write_table(tmp_path / name / "data/validation.parquet", validation_table(table))
    main(["compare", str(tmp_path / "one"), str(tmp_path / "two")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "validated by both: 6 images in 6 groups",
        "pair-Dice  +0.1000 (95%: +0.1000 to +0.1000): better",
        "  class 1  +0.2000 (95%: +0.2000 to +0.2000)",
    ]
    assert lines[4].startswith("6 images better, most of all 5.png, 4.png")
    assert lines[5] == "0 images worse"
    with pytest.raises(SystemExit, match="no such file"):
        main(["compare", str(tmp_path), str(tmp_path / "two")])


def test_images_that_changed_are_drawn_side_by_side(tiny_cache, tmp_path, capsys, monkeypatch):
    """By both models, under a heading for better and worse; names are text, and gone ones left."""
    kept, gone = tiny_cache.names[:2], "<b>.png"
    tables = {"one": [4, 4], "two": [6, 2]}
    for name, (first, second) in tables.items():
        (tmp_path / name / "data").mkdir(parents=True)
        table = {kept[0]: [first, 9], kept[1]: [second, 9], gone: [first, 9], "same": [5, 5]}
        write_table(tmp_path / name / "data/validation.parquet", validation_table(table))
    monkeypatch.setattr(experiments_compare, "CACHE", tiny_cache.folder)
    monkeypatch.chdir(tmp_path)
    main(["compare", "one", "two", "--page", "page.html"])
    assert capsys.readouterr().out.endswith("page: page.html\n")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 4
    better, worse = page.split("<h2>Better</h2>")[1].split("<h2>Worse</h2>")
    assert kept[0] in better
    assert kept[1] in worse
    assert "first: one: Dice 0.650" in better
    assert "second: two: Dice 0.750" in better
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page
