"""The report: what it chooses to show, what it says, and that it escapes what the data says."""

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from strategies import pivoted
from tiny_training import config

from steelseg.core.classes import Colour, default_classes, palette, perceived
from steelseg.core.errors import BadInput
from steelseg.core.files import read_metrics
from steelseg.data.cache import Cache
from steelseg.data.image_table import ImageTable
from steelseg.predict.postprocess import ClassRule
from steelseg.quality.operating_point import OperatingPoint
from steelseg.quality.verdicts import TRADE_OFF, Images, Verdicts, find
from steelseg.report import advice, data_figures, gallery, model_figures, verdict_figures
from steelseg.report import page as report_page
from steelseg.report.config import ReportConfig
from steelseg.report.drawing import OPACITY, draw
from steelseg.report.gallery import Picture
from steelseg.tune import headline, outcome
from steelseg.tune.components import ComponentTable, PairComponents
from steelseg.tune.matching import Matching
from steelseg.tune.outcome import Landscape

HOSTILE = '"><script>alert(1)</script>.png'

# (true, predicted, true positive, confidence) of the classes 1 and 2
PAIRS = {
    "perfect": [(10, 10, 10, 0.9), (0, 0, 0, 0.1)],
    "clean": [(0, 0, 0, 0.2), (0, 0, 0, 0.2)],
    "missed": [(10, 0, 0, 0.6), (20, 0, 0, 0.6)],
    "half": [(10, 10, 5, 0.9), (0, 0, 0, 0.1)],
    "sure of nothing": [(0, 0, 0, 0.99), (0, 0, 0, 0.1)],
}

CLASSES = default_classes([1, 2])


def pair_components(
    true: int, predicted: int, true_positive: int, confidence: float
) -> PairComponents:
    """One component at the only threshold, or none."""
    columns = [[0, predicted, predicted, true_positive]] if predicted else np.zeros((0, 4))
    return PairComponents(np.array(columns, dtype=np.int32).T, true, confidence)


def judged() -> Verdicts:
    """Verdicts of a hundred images, a third of them with one of two classes."""
    rng = np.random.default_rng(7)
    shown = np.arange(100)[:, None] % 6 == [0, 1]
    scores = np.clip(rng.random((100, 2)) * 0.7 + 0.3 * shown, 0, 1)
    images = Images(scores, shown, np.arange(100), np.arange(100) % 5)
    return find(images, [1, 2], OperatingPoint(false_alarms=10))


def matching(true: int, predicted: int, true_positive: int) -> Matching:
    """One true component, as long as its area, and one found, or none."""
    some = np.array([[0, 0]] if true_positive else np.zeros((0, 2)), dtype=np.int64)
    areas = [np.array([area] if area else [], dtype=np.int64) for area in (true, predicted)]
    return Matching(areas[0], areas[0], areas[1], some, np.full(len(some), true_positive))


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Five validation images, written and read back."""
    counts = np.array(list(PAIRS.values()))[..., [2, 1, 0]].astype(np.int64)
    found = (
        np.array(list(PAIRS.values()))[..., 3],
        [[matching(*pair[:3]) for pair in pairs] for pairs in PAIRS.values()],
    )
    path = tmp_path / "validation.parquet"
    components = ComponentTable([0.5], 2)
    for pairs in PAIRS.values():
        components.append([pair_components(*pair) for pair in pairs])
    rules = {1: ClassRule(), 2: ClassRule()}
    groups = np.arange(len(PAIRS))
    outcome.write_validation(path, list(PAIRS), groups, rules, components, counts // 2, *found)
    read = outcome.read_validation(path)
    assert np.array_equal(outcome.counts_of(read), counts)
    assert np.array_equal(outcome.counts_of(read, honest=True)[..., :2], counts[..., :2] // 2)
    shown = read[read["defect_sizes"].map(len) > 0]
    assert shown["defect_sizes"].map(list).tolist() == [[10], [10], [20], [10]]
    assert shown["defects_found"].map(list).tolist() == [[True], [False], [False], [True]]
    assert read["false_components"].sum() == 0
    return read


@pytest.fixture(scope="module")
def images(tiny_dataset: Path) -> ImageTable:
    return pivoted(tiny_dataset)[0]


def test_images_are_chosen_by_how_they_are_predicted(table: pd.DataFrame) -> None:
    """The best shows a defect, the worst misses some, and no image is chosen twice."""
    chosen = gallery.choose(table, 1)
    assert chosen == {"best": ["perfect"], "worst": ["missed"], "surprising": ["sure of nothing"]}
    everything = [name for names in gallery.choose(table, 3).values() for name in names]
    assert sorted(everything) == sorted(PAIRS)


def test_captions_say_what_is_there_and_what_was_found(table: pd.DataFrame) -> None:
    """Pixels and Dice of what is there or was found, and confidence that came to nothing."""
    texts = gallery.captions(table, CLASSES)
    assert texts["half"] == "class 1: Dice 0.50 (10 px found, 10 true)"
    assert texts["clean"] == "clean, and predicted clean"
    assert texts["sure of nothing"] == "class 1: correctly empty, at confidence 0.99"


def test_class_scores_are_cross_fitted(table: pd.DataFrame) -> None:
    """From the counts of rules chosen without the image; a class that is nowhere has no Dice."""
    rules = {1: ClassRule(), 2: ClassRule(enabled=False)}
    first, second = report_page.class_scores(table, rules)
    # perfect: 2 * 5 / (5 + 10), half: 2 * 2 / (5 + 10), missed: 0, and two empty pairs
    assert first["pair_dice"] == pytest.approx((10 / 15 + 4 / 15 + 0 + 1 + 1) / 5)
    assert first["all_empty"] == pytest.approx(2 / 5)
    assert first["images"] == 3
    nowhere = report_page.class_scores(table[table["image"] == "clean"], rules)[1]
    assert nowhere["positive_dice"] is None
    assert second["positive_dice"] == 0


def test_examples_go_from_the_largest_to_the_smallest() -> None:
    """Of each class, without its empty images; a class that no image shows has none."""
    rles: dict[int, list[str | None]] = {1: ["1 5", None, "1 1", "1 9 20 9", "4 2"], 2: [None] * 5}
    assert gallery.examples(rles, 2) == {1: [3, 2], 2: []}
    assert gallery.examples(rles, 9)[1] == [3, 0, 4, 2]


def test_a_picture_survives_its_address() -> None:
    """As a JPEG of the same colours; a wide one is made smaller."""
    picture = np.full((8, 2 * gallery.MAX_SIDE, 3), (200, 100, 50), dtype=np.uint8)
    kind, data = gallery.to_source(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    read = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert read.shape == (4, gallery.MAX_SIDE, 3)
    assert np.abs(read.astype(int) - (200, 100, 50)).max() < 6


def test_truth_is_tinted_and_what_was_found_is_outlined() -> None:
    """Inside the truth the grey shines through the class's colour, elsewhere it is left alone."""
    image = np.full((20, 20), 100, dtype=np.uint8)
    truth, found = np.zeros((2, 20, 20), dtype=np.uint8)
    truth[2:8, 2:8] = 1
    found[12:18, 12:18] = 1
    picture = draw(image, CLASSES, {1: found}, filled={1: truth})
    colour = np.array((230, 159, 0))
    assert np.array_equal(picture[12, 12], colour)
    assert np.array_equal(picture[15, 15], (100, 100, 100))
    assert np.array_equal(picture[4, 4], (100 * (1 - OPACITY) + colour * OPACITY).astype(np.uint8))


OKABE_ITO = ["#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2"]


def lab_of(colours: list[Colour]) -> np.ndarray:
    """CIELAB of colours as the screen shows them, (N, 3)."""
    pixels = np.array([colours], dtype=np.float32) / 255
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0]


@pytest.mark.parametrize(("n_classes", "least"), [(7, 26), (8, 26), (12, 25), (25, 16), (100, 5.9)])
def test_any_number_of_classes_is_told_apart(n_classes: int, least: float) -> None:
    """From one another, and from all greys of steel; 2.3 is a difference that is just seen."""
    colours = palette(n_classes)
    lab = lab_of(list(colours))
    greys = lab_of([(grey,) * 3 for grey in range(256)])
    between = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(n_classes, 1)]
    assert between.min() > least
    assert np.linalg.norm(lab[:, None] - greys, axis=2).min() > min(least, 16)
    classes = default_classes(range(1, n_classes + 1))
    assert [one.color for one in classes[:7]] == OKABE_ITO
    assert [one.rgb for one in classes] == list(colours)
    assert palette(n_classes - 1) == colours[:-1]  # a further class changes none


@pytest.mark.parametrize(("n_classes", "least"), [(7, 17), (25, 13.9), (50, 8.9)])
def test_eyes_without_red_or_green_tell_classes_apart_too(n_classes: int, least: float) -> None:
    """Not much worse than the first seven, which were made for them."""
    for seen in perceived(np.array(palette(n_classes))):
        between = np.linalg.norm(seen[:, None] - seen, axis=2)
        assert between[np.triu_indices(n_classes, 1)].min() > least


def test_colour_blind_eyes_see_greys_as_they_are() -> None:
    """And take a red and a green for much the same that others do not."""
    greys = np.array([(grey,) * 3 for grey in (0, 80, 255)], dtype=np.uint8)
    normal, deutan, protan = perceived(greys)
    assert np.abs(deutan - normal).max() < 1
    assert np.abs(protan - normal).max() < 1
    normal, deutan, protan = perceived(np.array([(160, 90, 60), (110, 110, 60)], dtype=np.uint8))
    far, near, _ = (np.linalg.norm(seen[0] - seen[1]) for seen in (normal, deutan, protan))
    assert far > 3 * near


def test_many_classes_have_their_number_beside_them() -> None:
    """Few have not: their colours are enough. Outlined or tinted alike, and inside the picture."""
    image = np.full((60, 80), 100, dtype=np.uint8)

    def drawn(n_classes: int, filled: bool) -> np.ndarray:
        masks = {c: np.zeros_like(image) for c in range(1, n_classes + 1)}
        masks[1][30:50, 20:60] = 1
        none = {c: np.zeros_like(image) for c in masks}
        classes = default_classes(masks)
        picture = draw(image, classes, none, masks) if filled else draw(image, classes, masks)
        return np.any(picture != 100, axis=2)

    for filled in (False, True):
        assert not drawn(7, filled)[:29].any()
        assert drawn(8, filled)[15:29, 18:40].any()
    corner = {c: np.zeros_like(image) for c in range(100, 108)}
    corner[107][0:6, 74:80] = 1
    label = np.any(draw(image, default_classes(corner), corner) != 100, axis=2)
    assert label[:14, 50:74].any()
    assert not label[14:].any()


def test_black_bands_are_measured_in_widths() -> None:
    """A quarter of the columns is black; dark spots that are no band do not count."""
    thumbnails = np.full((2, 32, 32), 90, dtype=np.float32)
    thumbnails[0, :, :8] = 3
    thumbnails[1, 4:20, 4] = 0
    assert data_figures.black_shares(thumbnails).tolist() == [0.25, 0]


SCORES = {
    "pair_dice": 0.8,
    "all_empty_pair_dice": 0.6,
    "optimistic_pair_dice": 0.805,
    "positive_dice_class_1": 0.7,
    "positive_dice_class_2": 0.4,
}
DATA = {"images": 100, "images_per_class": {"1": 50, "2": 10}}
PREDICTED = {"test_images": 100, "images_class_1": 48, "images_class_2": 11}


@pytest.mark.parametrize(
    ("scores", "losses", "predicted", "weights", "expected"),
    [
        ({}, [2, 1, 1.05], {}, "imagenet", ["Class 2 is found worst"]),
        ({}, [2, 1, 1.05], {}, None, ["pretrained weights", "Class 2 is found worst"]),
        ({}, [3, 2, 1], {}, "x", ["-S epochs=6", "Class 2"]),
        ({}, [3, 1, 2], {}, "x", ["lowest in epoch 2 of 3", "Class 2"]),
        ({"pair_dice": 0.6}, [2, 1, 1], {}, "x", ["no better than", "Class 2", "too optimistic"]),
        ({}, [2, 1, 1], {"images_class_2": 60}, "x", ["Class 2 is found", "60% of the test"]),
    ],
)
def test_advice_follows_from_the_figures(
    scores: dict, losses: list, predicted: dict, weights: str | None, expected: list[str]
) -> None:
    """Each sign brings its advice, and only that; what is within chance brings none."""
    metrics = {
        "tune_threshold": SCORES | scores,
        "pivot_csv": DATA,
        "predict": PREDICTED | predicted,
    }
    history = pd.DataFrame({"val_loss": losses})
    rules = {1: ClassRule(), 2: ClassRule()}
    lines = advice.advise(metrics, history, rules, CLASSES, weights)
    assert len(lines) == len(expected), lines
    assert all(part in line for part, line in zip(expected, lines, strict=True)), lines


def test_a_disabled_class_is_named() -> None:
    """It would be missed in the submission otherwise."""
    metrics = {"tune_threshold": SCORES, "pivot_csv": DATA, "predict": PREDICTED}
    rules = {1: ClassRule(enabled=False), 2: ClassRule()}
    lines = advice.advise(metrics, pd.DataFrame({"val_loss": [1, 2]}), rules, CLASSES, "x")
    assert any("Class 1 is disabled" in line for line in lines)


def test_a_landscape_reads_back_and_damage_is_found(tmp_path: Path) -> None:
    """As every file between the stages."""
    path = tmp_path / "landscape.json"
    written = Landscape([0.4, 0.5], [0, 9, 90], {3: np.arange(6.0).reshape(2, 3)})
    outcome.write_landscape(path, written)
    read = outcome.read_landscape(path)
    assert read[:2] == written[:2]
    assert np.array_equal(read.by_class[3], written.by_class[3])
    path.write_text(path.read_text().replace("0.4", "0.3"))
    with pytest.raises(BadInput, match="is damaged"):
        outcome.read_landscape(path)


def test_the_page_says_which_folds_were_validated_on() -> None:
    """One by one model, or all folds of an ensemble, each by the models that have not seen it."""
    model = Path("models")
    assert report_page.validated_on({2: [model]}, 5) == "the 5 images of fold 2"
    several = report_page.validated_on({0: [model], 1: [model, model]}, 9)
    assert several == (
        "the 9 images of folds 0, 1, each by those of 3 models that have not seen it"
    )


@pytest.fixture
def sections(table: pd.DataFrame, images: ImageTable, tiny_cache: Cache) -> dict[str, Any]:
    """All that a page is made of, with names and reasons that would do harm as HTML."""
    rules = {1: ClassRule(), 2: ClassRule(enabled=False)}
    metrics = {
        "tune_threshold": SCORES | {"positive_dice": 0.5},
        "train": {"best_epoch": 1},
        "stratified_split": {
            "images_per_fold": {"0": 5},
            "images_with_near_duplicates": 0,
            "test_images_with_training_twin": 0,
        },
        "pivot_csv": DATA | {"sizes": "48x80", "clean_images": 3, "test_images": 3},
        "submit": {"rows": 6, "masks": 2},
    }
    lines = [column for columns in model_figures.CURVES.values() for column in columns]
    history = pd.DataFrame({"epoch": [0, 1]} | {line: [2, 1] for line in lines})
    landscape = Landscape([0.4, 0.5], [0, 9], {1: np.eye(2), 2: np.eye(2)})
    bad = Picture("data:,", HOSTILE, "")
    shares = {"share_class_1": 0.3, "share_class_2": 0.1}
    return {
        "config": ReportConfig(dataset=HOSTILE, examples_per_class=1, crops=2, gallery_images=1),
        "network": {"arch": "Unet", "encoder": "resnet18"},
        "validated": report_page.validated_on({0: [Path("models")]}, 5),
        "metrics": metrics,
        "headlines": list(headline.readable(metrics["tune_threshold"])),
        "advice": [HOSTILE, f"`{HOSTILE}`"],
        "facts": data_figures.class_facts(images),
        "data_figures": data_figures.data_figures(images),
        "skipped": {HOSTILE: HOSTILE},
        "examples": [bad, *report_page.example_pictures(tiny_cache, images, 1)],
        "crops": [bad],
        "curves": model_figures.training_curves(history),
        "class_scores": report_page.class_scores(table, rules),
        "confusion": verdict_figures.confusion(table, CLASSES),
        "verdicts": verdict_figures.verdicts(judged(), CLASSES),
        "groups": verdict_figures.worst_groups(table, [HOSTILE] * len(PAIRS), 0.5),
        "defects": verdict_figures.defects(table, CLASSES),
        "landscapes": model_figures.landscapes(landscape, rules, CLASSES),
        "confidence_figures": model_figures.confidence_figures(table, CLASSES),
        "gallery": {"best": [bad], "worst": [], "surprising": []},
        "submission_figure": data_figures.submission_shares(images, shares),
    }


def test_a_page_escapes_what_the_data_says(sections: dict[str, Any], tiny_cache: Cache) -> None:
    """Names of files and reasons are text on it, whatever they hold; our own figures are drawn."""
    page = report_page.render(tiny_cache.class_infos, sections)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;.png") >= 10
    assert page.count("<svg") == 5 + 3 + 2 + 3 + 1 + 1
    assert page.count("currentColor") > 20
    assert "1 training images were left out" in page
    assert "the figure to believe" in page


CLEAN = {"pair_dice": 1.0, "all_empty_pair_dice": 1.0, "optimistic_pair_dice": 1.0}


def test_a_limit_that_is_not_promised_is_said_to_be_none() -> None:
    """With the reason; where it is promised there is none."""
    section = verdict_figures.verdicts(judged(), CLASSES)
    assert section["note"] == "with 66 clean images nothing below 45 per 1,000 can be shown"
    promised = {row["limit"]: row["promised"] for row in section["rows"]}
    assert promised == {limit: limit >= 50 for limit in TRADE_OFF}
    assert "escapes at each limit" in section["figures"][0]
    kept = judged().model_copy(update={"chosen": judged().trade_off[100]})
    assert verdict_figures.verdicts(kept, CLASSES)["note"] == ""


def test_defects_have_a_curve_or_a_reason() -> None:
    """A curve where found and missed sizes overlap, and counts in any case."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, 60, (80, 2))
    hits = [[rng.random() < first / (first + 9), True] for first, _ in sizes]
    table = pd.DataFrame({"class_id": [1, 2] * 80, "false_components": [1, 0] * 80})
    table["defect_sizes"] = [[size] for size in sizes.ravel()]
    table["defects_found"] = [[hit] for hit in np.ravel(hits)]
    table["group"] = np.arange(160) // 2
    section = verdict_figures.defects(table, CLASSES)
    first, second = section["rows"]
    assert (first["n"], first["false"], second["false"]) == (80, 1, 0)
    assert first["a50"] < first["a90"][0] < first["a90"][1]
    assert second["reason"].startswith("all 80 defects were found")
    assert len(section["figures"]) == 1
    assert "probability of detection of class 1" in section["figures"][0]
    in_mm = verdict_figures.defects(table, CLASSES, 0.5)
    assert (section["unit"], in_mm["unit"]) == ("px", "mm")
    assert in_mm["rows"][0]["a90"] == pytest.approx(np.array(first["a90"]) / 2, rel=1e-4)


def test_what_is_found_for_what(table: pd.DataFrame) -> None:
    """Of images that show a class, and of clean ones; rows of five images as they are drawn."""
    table = table.assign(honest_predicted=[5, 0, 0, 0, 0, 3, 5, 0, 0, 9])
    found = {row["class_id"]: row for row in verdict_figures.confusion(table, CLASSES)}
    assert found[1] == {"class_id": 1, "images": 3, "found": [2 / 3, 1 / 3], "nothing": 0.0}
    assert found[2] == {"class_id": 2, "images": 1, "found": [0.0, 1.0], "nothing": 0.0}
    assert found[None] == {"class_id": None, "images": 2, "found": [0.0, 0.5], "nothing": 0.5}


def test_the_worst_groups_come_first(table: pd.DataFrame) -> None:
    """By wrong verdicts, then by Dice; images of no group are in none."""
    groups = ["b", "a", "b", "a", ""]
    rows = verdict_figures.worst_groups(table, groups, 0.7)
    assert [(r["group"], r["images"], r["escapes"], r["false_alarms"]) for r in rows] == [
        ("b", 2, 1, 0),
        ("a", 2, 0, 0),
    ]
    alone = verdict_figures.worst_groups(table, [*groups[:-1], "c"], 0.7)
    assert [r["group"] for r in alone] == ["b", "c", "a"]
    assert alone[1]["false_alarms"] == 1
    assert verdict_figures.worst_groups(table, [""] * 5, 0.7) == []
    assert verdict_figures.worst_groups(table, groups, None) == []


def test_a_test_set_that_was_held_out_stands_on_the_page(
    sections: dict[str, Any], tiny_cache: Cache
) -> None:
    """With its interval, and without classes that it does not show; without one, not a word."""
    assert "test set" not in report_page.render(tiny_cache.class_infos, sections)
    scores = {"images": 30, "groups": 10, "pair_dice": 0.75, "pair_dice_low": 0.6875}
    scores |= {"pair_dice_high": 0.8125, "all_empty_pair_dice": 0.5}
    scores |= {"positive_dice_class_2": 0.25, "positive_dice_class_2_low": 0.125}
    scores |= {"positive_dice_class_2_high": 0.375}
    tuned = SCORES | {f"held_out_{name}": value for name, value in scores.items()}
    metrics = sections["metrics"] | {"tune_threshold": tuned}
    text = report_page.render(tiny_cache.class_infos, sections | {"metrics": metrics})
    assert "30 held-out images: 0.6875 to 0.8125 with 95% confidence over 10 groups" in text
    rows = text.split("<h3>The test set</h3>")[1].split("</table>")[0]
    assert rows.count("class 2") == 1
    assert "0.125 to 0.375" in rows
    assert "class 1" not in rows


def test_a_page_without_a_defect_says_so(sections: dict[str, Any], tiny_cache: Cache) -> None:
    """Where no validation image shows one, there is no figure to believe."""
    sections["metrics"]["tune_threshold"] = CLEAN
    page = report_page.render(tiny_cache.class_infos, sections)
    assert "since no validation image shows a defect" in page
    assert "the figure to believe" not in page
    assert "<b>\N{EN DASH}</b><span>Dice where there is a defect" in page


@pytest.mark.parametrize("text", [None, "", "epoch,val_loss\n", "a,b\n1,2\n", "\0"])
def test_a_history_that_is_none_is_refused(text: str | None, tmp_path: Path) -> None:
    """Missing, empty, cut short, or another file."""
    path = tmp_path / "train.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=r"train\.csv: "):
        model_figures.read_history(path)


@pytest.mark.parametrize("text", ["{}", "[]", "[1]", "3", "null"])
def test_metrics_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    """With the stage to run again."""
    (tmp_path / "predict.json").write_text(text)
    with pytest.raises(BadInput, match="expected metrics by name; run `dvc repro -f predict`"):
        read_metrics(tmp_path / "predict.json")


def test_curves_without_a_defect_have_no_iou() -> None:
    """It is not defined there; the other figures stay."""
    history = pd.DataFrame({"epoch": [0], "train_loss": [1], "val_loss": [1], "val_pair_dice": [1]})
    assert len(model_figures.training_curves(history)) == 2


def test_the_best_images_are_of_those_with_a_defect(table: pd.DataFrame) -> None:
    """Where there is none, none is shown as well found."""
    clean = table[table["image"].isin(["clean", "sure of nothing"])]
    chosen = gallery.choose(clean, 1)
    assert chosen["best"] == []
    assert len(chosen["worst"]) == len(chosen["surprising"]) == 1


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([], "No validation image shows a defect"),
        ([1], "No validation image shows class 2"),
        ([2], "No validation image shows class 1"),
    ],
)
def test_advice_begins_with_what_the_figures_do_not_tell(shown: list[int], expected: str) -> None:
    """A class that nobody looked for is not called disabled, nor a score of nothing bad."""
    scores = CLEAN | {f"positive_dice_class_{c}": 0.4 for c in shown}
    metrics = {"tune_threshold": scores, "pivot_csv": DATA, "predict": PREDICTED}
    rules = {c: ClassRule(enabled=c in shown) for c in (1, 2)}
    lines = advice.advise(metrics, pd.DataFrame({"val_loss": [2, 1, 1.05]}), rules, CLASSES, "x")
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_the_crops_shown_are_those_of_the_first_epoch(tiny_cache: Cache) -> None:
    """As many as asked for, each of a training image, drawn at the size that the network gets."""
    settings = config(crop=[16, 24], crop_on_defect=0.5, augment=[], seed=3, crops_per_image=1)
    rows = np.array([2, 5, 7])
    pictures = list(report_page.crop_pictures(tiny_cache, rows, settings, 9))
    assert sorted(p.image for p in pictures) == [tiny_cache.names[r] for r in rows]
    data = base64.b64decode(pictures[0].source.split(",")[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (16, 24, 3)
