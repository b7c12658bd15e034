"""Tests of the threshold search against the plain loop over the whole grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from saved_models import maps_of, open_runtime
from tables import SMALL, clean_mask, dice, fill_from_pixels, fill_table, images

from steelseg.predict.postprocess import ClassRule
from steelseg.tune.components import ComponentTable
from steelseg.tune.metrics import pair_dice
from steelseg.tune.search import (
    TuneConfig,
    count,
    cross_fit,
    evaluate,
    landscape,
    parts_of,
    report,
    search,
)


def rules_by_surprise(config):
    """List every rule of the grid, the least surprising first."""
    thresholds = sorted(config.thresholds, key=lambda t: (round(abs(t - 0.5), 9), t))
    lists = thresholds, config.min_component_areas, config.min_areas, config.gates
    names = "threshold", "min_component_area", "min_area", "gate"
    rules = [ClassRule(**dict(zip(names, v, strict=True))) for v in itertools.product(*lists)]
    return [*rules, ClassRule(enabled=False)]


def search_by_loop(probabilities, masks, config):
    """Post-process every image under every rule, and take the first of the best: rule, Dice."""
    best = None
    for rule in rules_by_surprise(config):
        pairs = zip(probabilities, masks, strict=True)
        mean = np.mean([dice(clean_mask(p, rule), m) for p, m in pairs])
        if best is None or mean > best[1] + 1e-9:
            best = rule, mean
    return best


@settings(max_examples=25, deadline=None)
@given(images())
def test_search_finds_the_optimum_of_the_plain_loop(drawn):
    """Without smoothing it is the very rule that the loop over the grid finds, ties included."""
    probabilities, masks = drawn
    table = fill_table(probabilities, masks)
    rules = search(table, SMALL)
    scores = evaluate(table, rules).mean(axis=0)
    for c, (rule, score) in enumerate(zip(rules, scores, strict=True)):
        expected, best = search_by_loop(probabilities[:, c], masks[:, c], SMALL)
        assert rule == expected
        assert score == pytest.approx(best, abs=1e-12)


@settings(max_examples=25)
@given(images(), st.data())
def test_rows_are_all_that_a_search_looks_at(drawn, data):
    """Searching some rows is searching a table of those images alone."""
    probabilities, masks = drawn
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(masks), max_size=len(masks))))
    alone = fill_table(probabilities[kept], masks[kept])
    table = fill_table(probabilities, masks)
    assert search(table, SMALL, kept) == search(alone, SMALL)
    assert search(table, SMALL, np.flatnonzero(kept)) == search(alone, SMALL)
    rules = [ClassRule(threshold=0.4), ClassRule(threshold=0.6, gate=0.65)]
    assert np.array_equal(evaluate(table, rules, kept), evaluate(alone, rules))


@settings(max_examples=25)
@given(images(), st.integers(2, 4), st.data())
def test_cross_fit_scores_each_part_under_the_rules_of_the_others(drawn, n_splits, data):
    """The cross-fitted score is put together from searches that never saw the image scored."""
    probabilities, masks = drawn
    table = fill_table(probabilities, masks)
    groups = data.draw(
        st.lists(st.integers(0, 3), min_size=len(table), max_size=len(table)), label="groups"
    )
    config = SMALL.model_copy(update={"n_splits": n_splits, "smoothing": 0.75})
    parts = parts_of(table, n_splits, groups)
    fitted = cross_fit(table, config, groups)
    found = pair_dice(fitted.counts)
    for part in np.unique(parts):
        rules = search(table, config, parts != part)
        assert all(fitted.rules[i] == rules for i in np.flatnonzero(parts == part))
        assert np.array_equal(found[parts == part], evaluate(table, rules, parts == part))


@given(images(), st.integers(2, 4), st.data())
def test_parts_keep_groups_together(drawn, n_splits, data):
    """No group is divided, no part is empty, and the parts are the same every time."""
    table = fill_table(*drawn)
    groups = data.draw(st.lists(st.sampled_from("abc"), min_size=len(table), max_size=len(table)))
    parts = parts_of(table, n_splits, groups)
    assert len(set(zip(groups, parts.tolist(), strict=True))) == len(set(groups))
    assert sorted(set(parts.tolist())) == list(range(min(n_splits, len(set(groups)))))
    assert np.array_equal(parts, parts_of(table, n_splits, groups))


def test_search_on_labels_of_chance_is_honest_about_it():
    """Where masks are pure chance the search flatters itself; cross-fitted it wins nothing."""
    rng = np.random.default_rng(0)
    config = TuneConfig(smoothing=0)
    gains = {"optimistic": 0.0, "honest": 0.0}
    for _ in range(10):
        probabilities = rng.random((30, 1, 6, 6), dtype=np.float32) ** 2
        masks = (rng.random((30, 1, 6, 6)) < 0.5) & (rng.random((30, 1, 1, 1)) < 0.3)
        table = fill_table(probabilities, masks.astype(np.uint8), config)
        empty = evaluate(table, [ClassRule(enabled=False)]).mean()
        gains["optimistic"] += (evaluate(table, search(table, config)).mean() - empty) / 10
        gains["honest"] += (
            pair_dice(cross_fit(table, config, np.arange(30)).counts).mean() - empty
        ) / 10
    assert gains["optimistic"] > 0.005
    assert gains["honest"] < 0.001


@settings(max_examples=25)
@given(images(), st.sampled_from([0.3, 0.75, 2.0]))
def test_smoothing_is_a_mean_over_the_neighbours_that_there_are(drawn, sigma):
    """Judged by Gaussian weights over the whole grid, written out, the same rule is the best.

    Nothing is smoothed for a class that no image shows.
    """
    probabilities, masks = drawn
    config = SMALL.model_copy(update={"smoothing": sigma, "may_disable": False})
    lists = config.thresholds, config.min_component_areas, config.min_areas, config.gates
    cells = list(np.ndindex(*map(len, lists)))
    steps = np.array(cells)[:, None] - np.array(cells)
    weights = np.exp(-0.5 * (steps**2).sum(axis=2) / sigma**2)
    for c, rule in enumerate(search(fill_table(probabilities, masks), config)):
        sums = []
        for cell in cells:
            values = (options[i] for options, i in zip(lists, cell, strict=True))
            names = "threshold", "min_component_area", "min_area", "gate"
            one = ClassRule(**dict(zip(names, values, strict=True)))
            pairs = zip(probabilities[:, c], masks[:, c], strict=True)
            sums.append(sum(dice(clean_mask(p, one), m) for p, m in pairs))
        score = np.array(sums)
        if masks[:, c].any():
            score = weights @ score / weights.sum(axis=1)
        chosen = tuple(
            options.index(value)
            for options, value in zip(
                lists, rule.model_dump(exclude={"enabled"}).values(), strict=True
            )
        )
        assert score[cells.index(chosen)] == pytest.approx(score.max(), abs=1e-8)


def test_smoothing_prefers_a_plateau_to_a_lone_peak():
    """The exact optimum stands alone at 0.9; its neighbours are poor, those of 0.3 and 0.4 good."""
    thresholds = [round(i / 10, 1) for i in range(1, 10)]
    lists = {"min_component_areas": [0], "min_areas": [0], "gates": [0.0]}
    config = TuneConfig(thresholds=thresholds, **lists)
    false_alarms = [(0.15, 0)] * 3 + [(0.85, 0)] * 4
    table = fill_from_pixels([*false_alarms, *[(0.55, 1)] * 3, *[(0.95, 1)] * 3], config)
    assert search(table, config)[0].threshold in (0.3, 0.4)
    assert search(table, config.model_copy(update={"smoothing": 0}))[0].threshold == 0.9


def test_ties_go_to_the_least_surprising_rule():
    """Where all rules are as good, it is the threshold of 0.5 and nothing else."""
    for smoothing in (0, 0.75):
        config = TuneConfig(smoothing=smoothing)
        table = fill_from_pixels([(0.0, 0), (0.01, 1)], config)
        assert search(table, config) == [ClassRule()]


def test_of_two_thresholds_as_near_to_a_half_the_lower_is_taken():
    """0.45 and 0.55 are as near, whatever their difference to 0.5 is rounded to."""
    config = TuneConfig(thresholds=[0.45, 0.55])
    assert search(fill_from_pixels([(0.9, 1)], config), config)[0].threshold == 0.45


def test_class_that_is_nowhere_scores_one():
    """If nothing fires it stays enabled; if every rule of the grid fires it is disabled."""
    config = TuneConfig()
    quiet = fill_from_pixels([(0.2, 0)] * 3, config)
    assert search(quiet, config) == [ClassRule()]
    probabilities = np.ones((3, 1, 4, 4), dtype=np.float32)
    loud = fill_table(probabilities, np.zeros_like(probabilities, dtype=np.uint8))
    for smoothing in (0, 0.75):
        rules = search(loud, SMALL.model_copy(update={"smoothing": smoothing}))
        assert rules == [ClassRule(enabled=False)]
        assert evaluate(loud, rules).tolist() == [[1.0]] * 3
    forbidden = SMALL.model_copy(update={"may_disable": False})
    assert search(loud, forbidden)[0].enabled


def test_class_shown_by_a_single_group_is_found_cross_fitted():
    """Images without it say nothing against it, though a rule near theirs raises a false alarm."""
    config = TuneConfig(min_component_areas=[0], min_areas=[0], gates=[0.0])
    table = fill_from_pixels([(0.9, 1), *[(0.6, 0)] * 2, *[(0.0, 0)] * 3], config)
    fitted = cross_fit(table, config, range(6))
    assert all(rule.enabled for rules in fitted.rules for rule in rules)
    assert pair_dice(fitted.counts).min() == 1.0


def test_class_that_is_everywhere_is_found():
    """With the class in every image no area and no gate is called for."""
    config = TuneConfig()
    table = fill_from_pixels([(0.9, 1)] * 4, config)
    assert search(table, config) == [ClassRule()]
    assert pair_dice(cross_fit(table, config, range(4)).counts).mean() == 1.0


def test_gate_and_areas_are_used_where_they_help():
    """Blobs of false alarm are told from defects by size, by total, or by confidence."""
    probabilities = np.zeros((2, 3, 8, 8), dtype=np.float32)
    masks = np.zeros((2, 3, 8, 8), dtype=np.uint8)
    probabilities[0, :, 1:6, 1:6] = masks[0, :, 1:6, 1:6] = 1
    probabilities[0, 0, 7, 7] = 1  # beside the defect: only the component area can tell
    probabilities[1, 1, 0:8:2, 0:8:2] = 1  # speckle alone: the least of the rules is the component
    probabilities[1, 2, 1:6, 1:6] = 0.8  # the defect's size, less sure
    areas = [0, 2, 20]
    config = TuneConfig(thresholds=[0.5], min_component_areas=areas, min_areas=areas, smoothing=0)
    table = fill_table(probabilities, masks, config)
    rules = search(table, config)
    assert rules[0] == ClassRule(min_component_area=2)
    assert rules[1] == ClassRule(min_area=20)
    assert rules[2] == ClassRule(gate=0.8)
    assert evaluate(table, rules).min() == 1.0


def test_areas_beyond_the_image_do_no_harm():
    """On images smaller than most areas of the default grid the search finds the defect."""
    probabilities = np.zeros((3, 1, 10, 10), dtype=np.float32)
    probabilities[:, :, 2:8, 2:8] = 0.7
    masks = (probabilities > 0).astype(np.uint8)
    config = TuneConfig()
    table = fill_table(probabilities, masks, config)
    assert evaluate(table, search(table, config)).min() == 1.0


def test_single_image_is_scored_under_the_untuned_rule():
    """There is nothing to cross-fit on, so nothing tuned is scored; no group is scored twice."""
    config = TuneConfig()
    table = fill_from_pixels([(0.4, 1)], config)
    assert evaluate(table, search(table, config)).tolist() == [[1.0]]
    assert pair_dice(cross_fit(table, config, [7]).counts).tolist() == [[0.0]]
    twins = fill_from_pixels([(0.4, 1)] * 3, config)
    assert pair_dice(cross_fit(twins, config, [7, 7, 7]).counts).tolist() == [[0.0]] * 3


def test_empty_table_gives_untuned_rules():
    """No validation images at all are no reason to fail in the search."""
    config = TuneConfig()
    table = ComponentTable(config.thresholds, 2)
    assert search(table, config) == [ClassRule(), ClassRule()]
    assert count(table, search(table, config)).shape == (0, 2, 3)


def test_report_puts_the_honest_score_first():
    """`pair_dice` is cross-fitted; the optimistic, untuned and all-empty scores stand beside it."""
    config = TuneConfig()
    table = fill_from_pixels([(0.4, 1), (0.4, 1), (0.2, 0), (0.2, 0)], config)
    groups = [0, 1, 2, 3]
    scores = report(table, search(table, config), cross_fit(table, config, groups).counts, [3])
    assert scores["pair_dice"] == pair_dice(cross_fit(table, config, groups).counts).mean()
    true_positive, _, true = cross_fit(table, config, groups).counts[:, 0].sum(axis=0)
    assert scores["iou_class_3"] == true_positive / true  # nothing is predicted beside the truth
    assert scores["optimistic_pair_dice"] == 1.0
    assert scores["untuned_pair_dice"] == scores["all_empty_pair_dice"] == 0.5
    assert scores["iou_class_3"] == pytest.approx(
        cross_fit(table, config, range(4)).counts[:2, 0, 0].mean()
    )


@settings(max_examples=25)
@given(images())
def test_landscape_peaks_at_the_optimum(drawn):
    """Its highest point is the mean Dice of the exact search, unless disabling is better yet."""
    table = fill_table(*drawn)
    scores = evaluate(table, search(table, SMALL)).mean(axis=0)
    empty = evaluate(table, [ClassRule(enabled=False)] * 2).mean(axis=0)
    for c in range(2):
        heights = landscape(table, c, SMALL)
        assert heights.shape == (3, 3)
        assert max(heights.max(), empty[c]) == pytest.approx(scores[c], abs=1e-12)


def test_tables_and_rules_that_do_not_fit_are_refused():
    """A threshold that was not measured, or a rule too few, is an error and no guess."""
    table = fill_from_pixels([(0.4, 1)], SMALL)
    with pytest.raises(ValueError, match="Expected a table measured at"):
        search(table, TuneConfig())
    with pytest.raises(ValueError, match="Expected a threshold of"):
        evaluate(table, [ClassRule(threshold=0.5)])
    with pytest.raises(ValueError, match="Expected 1 rules, but got 2"):
        evaluate(table, [ClassRule(threshold=0.4)] * 2)
    with pytest.raises(ValueError, match="groups"):
        cross_fit(table, SMALL, [0, 1])


@pytest.mark.parametrize(
    "field",
    [
        {"thresholds": [0.5, 0.5]},
        {"thresholds": [0.0]},
        {"thresholds": []},
        {"min_areas": [5, 1]},
        {"min_component_areas": [-1]},
        {"gates": [1.0]},
        {"smoothing": -1.0},
        {"n_splits": 1},
        {"min_area": [0]},
    ],
)
def test_config_refuses_what_makes_no_sense(field):
    """Lists that do not increase, values out of range and unknown names are errors."""
    with pytest.raises(ValidationError):
        TuneConfig(**field)


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_what_is_found_does_not_depend_on_the_batch(tiny_model, tiny_cache, runtime):
    """Rules, counts and scores are the same to the last digit, whole batches or not."""
    found = []
    for batch_size in (1, 3, 5):
        table = ComponentTable(TuneConfig().thresholds, 2)
        rows = range(len(tiny_cache))
        images = map(tiny_cache.image, rows)
        for row, maps_chw in enumerate(
            maps_of(images, open_runtime(tiny_model, runtime, batch_size))
        ):
            table.add(maps_chw, tiny_cache.masks(row))
        rules = search(table, TuneConfig())
        honest = cross_fit(table, TuneConfig(), list(rows)).counts
        found.append((rules, count(table, rules).tolist(), report(table, rules, honest, [1, 2])))
    assert found[0] == found[1] == found[2]
