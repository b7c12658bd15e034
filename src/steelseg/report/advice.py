"""Suggests what to try next, from the metrics of a run."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import pandas as pd

from steelseg.core.classes import ClassInfo, capitalised
from steelseg.predict.postprocess import ClassRule
from steelseg.tune.metrics import caveat

FLATTERY = 0.01  # optimism of tuning, in pair-Dice, that is worth mentioning
POSITIVE = "positive_dice"  # the Dice where there is a defect; missing if there is none
DEVIATIONS = 3  # standard deviations between two shares that are worth mentioning


def advise(
    metrics: Mapping[str, Mapping[str, Any]],
    history: pd.DataFrame,
    rules: Mapping[int, ClassRule],
    classes: Sequence[ClassInfo],
    encoder_weights: str | None,
) -> list[str]:
    """List what to try next, the most promising first.

    Args:
        metrics: the report of each stage, by its name.
        history: of the training, one row per epoch.
        rules: the tuned rule of each class.
        classes: with their names.
        encoder_weights: the initial weights of the encoder.
    """
    scores = metrics["tune_threshold"]
    names = {one.id: capitalised(one.name) for one in classes}
    advice = [note] if (note := caveat(scores, classes)) else []
    if scores["pair_dice"] <= scores["all_empty_pair_dice"] < 1:
        advice.append(
            "It scores no better than predicting nothing: check in the crops below that the masks "
            "match the defects, then train longer."
        )
    if encoder_weights is None:
        advice.append(
            "The encoder was trained from scratch: pretrained weights usually help most "
            "(`-S encoder=tu-tf_efficientnet_lite0 -S encoder_weights=auto`)."
        )
    return [
        *advice,
        *_of_curves(history["val_loss"].tolist()),
        *_of_classes(scores, rules, names),
        *_of_tuning(scores),
        *_of_submission(metrics["pivot_csv"], metrics["predict"], names),
    ]


def _of_curves(losses: Sequence[float]) -> Iterator[str]:
    lowest = losses.index(min(losses))
    if lowest == len(losses) - 1:
        yield (
            f"The validation loss was still falling in the last epoch: train longer "
            f"(`-S epochs={2 * len(losses)}`)."
        )
    elif losses[-1] > 1.1 * losses[lowest]:
        yield (
            f"The validation loss was lowest in epoch {lowest + 1} of {len(losses)} and rose after "
            "that: stronger `train.augment`, or `-S optimizer=adamw -S train.weight_decay=1e-4`."
        )


def _of_classes(
    scores: Mapping[str, float], rules: Mapping[int, ClassRule], names: Mapping[int, str]
) -> Iterator[str]:
    for class_id, rule in rules.items():
        if not rule.enabled and f"{POSITIVE}_class_{class_id}" in scores:
            yield f"{names[class_id]} is disabled: no threshold beats predicting nothing."
    name = f"{POSITIVE}_class_"
    found = {int(k.removeprefix(name)): v for k, v in scores.items() if k.startswith(name)}
    if len(found) > 1:
        worst = min(found, key=lambda c: found[c])
        yield (
            f"{names[worst]} is found worst (Dice {found[worst]:.2f} where it occurs): look at its "
            "images below; more crops on defects help rare classes (`-S train.crop_on_defect=0.9`)."
        )


def _of_tuning(scores: Mapping[str, float]) -> Iterator[str]:
    flattery = scores["optimistic_pair_dice"] - scores["pair_dice"]
    if flattery > FLATTERY:
        yield (
            f"Tuning is too optimistic by {flattery:.3f}, since there are few validation images: "
            "smooth more (`-S tune_threshold.smoothing=1.5`) or use fewer, larger folds."
        )


def _of_submission(
    data: Mapping[str, Any], predicted: Mapping[str, Any], names: Mapping[int, str]
) -> Iterator[str]:
    """Name the classes predicted far more or less often than training images show them."""
    n_trained, n_predicted = data["images"], predicted["test_images"]
    if not n_predicted:
        return
    for class_id, n_shown in data["images_per_class"].items():
        n_found = predicted[f"images_class_{class_id}"]
        pooled = (n_shown + n_found) / (n_trained + n_predicted)
        error = sqrt(pooled * (1 - pooled) * (1 / n_trained + 1 / n_predicted))
        one, other = n_shown / n_trained, n_found / n_predicted
        if abs(one - other) > DEVIATIONS * error:
            yield (
                f"{names[int(class_id)]} is predicted on {other:.0%} of the test images but shown "
                f"by {one:.0%} of the training images: the test images differ, or its rule is off."
            )
