"""Names and colours of classes stand wherever people read of them; keys and ids stay."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from saved_models import change_card

import steelseg
from steelseg.core import sealed
from steelseg.core.classes import ClassInfo, default_classes, enumerated
from steelseg.core.files import write_json
from steelseg.data import rle
from steelseg.data.cache import Cache
from steelseg.demo.samples import table_of
from steelseg.model.card import CARD, read_card
from steelseg.predict.model import Finding
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.predictions import PredictionRow
from steelseg.registry.log import describe
from steelseg.report import advice, gallery, model_figures, summary
from steelseg.report.drawing import draw
from steelseg.score.store import ScoreStore, place
from steelseg.tune import metrics
from steelseg.tune.outcome import Landscape

NAMED = [ClassInfo(1, "scratch", "#112233"), ClassInfo(2, "$5 pit_$", "#ffee00")]
MIXED = [ClassInfo(3, "class 3", "#112233"), ClassInfo(7, "pit", "#ffee00")]


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (default_classes([3]), "class 3"),
        (default_classes([3, 7]), "classes 3, 7"),
        (NAMED[:1], "scratch"),
        (MIXED, "class 3, pit"),
    ],
)
def test_classes_are_enumerated_as_people_say_them(classes: list[ClassInfo], text: str) -> None:
    """By number where nobody has named any."""
    assert enumerated(classes) == text


def test_a_label_is_the_number_where_there_is_no_name() -> None:
    """Beside the word `class`, `class 3` would say it twice."""
    assert [one.label for one in MIXED] == ["3", "pit"]
    assert MIXED[0].rgb == (0x11, 0x22, 0x33)


def test_a_card_has_the_names_and_an_older_one_the_numbers(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A card from before there were names opens as it did; findings say what the card says."""
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    older = sealed.read_sealed_json(tmp_path / CARD)
    assert older.pop("class_infos") == []
    sealed.write_sealed_json(tmp_path / CARD, older)
    image_hw = np.full((32, 64), 90, np.uint8)
    model = steelseg.Model.open(tmp_path)
    assert model.class_infos == default_classes([1, 2])
    assert [found.class_name for found in model.predict(image_hw)] == ["class 1", "class 2"]
    change_card(tmp_path, class_infos=NAMED)
    assert read_card(tmp_path).class_infos == NAMED
    assert sealed.read_sealed_json(tmp_path / CARD)["class_infos"][0] == NAMED[0]._asdict()
    named = steelseg.Model.open(tmp_path).predict(image_hw)
    assert [(found.class_id, found.class_name) for found in named] == [
        (1, "scratch"),
        (2, "$5 pit_$"),
    ]


def test_sentences_name_the_classes() -> None:
    """What to try next, what the figures do not tell, and the captions of pictures."""
    scores = {"pair_dice": 0.8, "all_empty_pair_dice": 0.6, "optimistic_pair_dice": 0.8}
    assert metrics.caveat(scores | {"positive_dice_class_2": 0.4}, NAMED).startswith(
        "No validation image shows scratch: the scores say nothing about finding it"
    )
    scores |= {"positive_dice_class_1": 0.7, "positive_dice_class_2": 0.4}
    stages: dict[str, Any] = {
        "tune_threshold": scores,
        "pivot_csv": {"images": 100, "images_per_class": {"1": 50, "2": 10}},
        "predict": {"test_images": 100, "images_class_1": 5, "images_class_2": 11},
    }
    rules = {1: ClassRule(enabled=False), 2: ClassRule()}
    lines = advice.advise(stages, pd.DataFrame({"val_loss": [2, 1, 1]}), rules, NAMED, "x")
    assert lines[0].startswith("Scratch is disabled")
    assert lines[1].startswith("$5 pit_$ is found worst")
    assert lines[2].startswith("Scratch is predicted on 5%")
    table = pd.DataFrame(
        {"image": "a", "class_id": [1, 2], "confidence": 0.5, "true": 9, "predicted": 9}
        | {"true_positive": 9}
    )
    text = gallery.captions(table, NAMED)["a"]
    assert text == (
        "scratch: Dice 1.00 (9 px found, 9 true); $5 pit_$: Dice 1.00 (9 px found, 9 true)"
    )


def test_figures_have_names_and_colours() -> None:
    """As they stand in classes.csv: a dollar begins no formula."""
    landscape = Landscape([0.4, 0.5], [0, 9], {1: np.eye(2), 2: np.eye(2)})
    rules = {1: ClassRule(), 2: ClassRule()}
    first, second = model_figures.landscapes(landscape, rules, NAMED)
    assert "Scratch" in first
    assert "$5 pit_$" in second
    table = pd.DataFrame({"class_id": [1, 2] * 8, "true": [0, 1] * 8})
    table["confidence"] = table["raw_confidence"] = [0.1, 0.9] * 8
    drawn = model_figures.confidence_figures(table, NAMED)[0]
    for one in NAMED:
        assert one.name in drawn
        assert one.color in drawn


def test_pictures_have_the_colours_and_hatch_what_is_ignored() -> None:
    """Both black and white, so that it shows on any grey; outside it the image is as it was."""
    image_hw, mask_hw, ignored_hw = (np.full((40, 60), grey, np.uint8) for grey in (100, 0, 0))
    mask_hw[5:15, 5:15] = 1
    ignored_hw[20:, 30:] = 1
    picture = draw(image_hw, NAMED, {1: mask_hw, 2: mask_hw * 0}, ignored_hw=ignored_hw)
    assert tuple(picture[5, 5]) == (0x11, 0x22, 0x33)
    assert {0, 255, 100} == set(picture[ignored_hw == 1].ravel().tolist())
    picture[:20, :20] = 100
    assert (picture[ignored_hw == 0] == 100).all()


def test_scored_rows_have_a_name(tmp_path: Path) -> None:
    """Beside the number; predictions.parquet has numbers alone."""
    rows = [PredictionRow("a.png", 2, "1 1", 1, 0.5)]
    ScoreStore(place(str(tmp_path)), "3").write(["a.png"], rows, {}, {2: "pit"})
    (path,) = tmp_path.rglob("part-*.parquet")
    assert pd.read_parquet(path)["class_name"].tolist() == ["pit"]


def test_what_is_ignored_does_not_count_in_the_demo() -> None:
    """Found or not; a class that has a name has a column for it."""
    found_hw, ignored_hw = np.ones((2, 2, 3), np.uint8)
    ignored_hw[:, 0] = 0
    found = Finding(1, rle.encode(found_hw), 6, 0.9, (2, 3), "scratch", 0.9)
    (row,) = table_of([found], {1: 1 - ignored_hw}, ignored_hw)
    assert (row["name"], row["pixels"], row["annotated"], row["Dice"]) == ("scratch", 6, 2, 1.0)
    (row,) = table_of([found._replace(class_name="class 1")], {1: 1 - ignored_hw})
    assert "name" not in row
    assert row["Dice"] == 0.5


def test_mlflow_is_told_what_the_numbers_mean() -> None:
    """In a description, since metrics have none; where nobody has named a class, nothing."""
    assert describe({}, MIXED) == "- class 7: pit"
    assert describe({}, default_classes([1, 2])) == ""
    text = describe({"recall": 0.5, "recall_low": 0.25, "recall_high": 0.75, "lr": 1}, MIXED)
    assert text.endswith(" that are found | 50.0% | 25.0% to 75.0% |\n\n- class 7: pit")
    assert "lr" not in text


def test_the_summary_names_the_classes(tiny_model: Path, tmp_path: Path) -> None:
    """By the card of the model that was scored."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / CARD).write_bytes((tiny_model / CARD).read_bytes())
    change_card(tmp_path / "models", class_infos=NAMED)
    scores = {"pair_dice": 0.8, "all_empty_pair_dice": 0.6, "optimistic_pair_dice": 0.8}
    scores |= {"positive_dice_class_1": 0.7}
    write_json(tmp_path / "metrics/tune_threshold.json", scores)
    write_json(tmp_path / "metrics/submit.json", {"rows": 2, "masks": 1})
    text = summary.summarise(tmp_path)
    assert "Dice where there is a defect: scratch: 0.700" in text
    assert "No validation image shows $5 pit_$" in text


def test_the_report_shows_images_with_ignored_regions(ignored_cache: Cache) -> None:
    """Crops have a mask more than there are classes."""
    from tiny_training import config

    from steelseg.report.page import crop_pictures

    settings = config(crop=[16, 24], crop_on_defect=0.5, seed=3, crops_per_image=1)
    pictures = list(crop_pictures(ignored_cache, np.array([0, 3, 5]), settings, 3))
    assert len(pictures) == 3
    assert {p.caption for p in pictures} <= {"clean", "class 1", "class 2", "classes 1, 2"}
