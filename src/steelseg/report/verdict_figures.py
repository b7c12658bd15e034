"""Figures for inspectors: escapes by false alarms, defects by size, the worst groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, PercentFormatter, ScalarFormatter

from steelseg.core.arrays import Float64
from steelseg.core.classes import ClassInfo, capitalised
from steelseg.quality.intervals import Estimate, rate
from steelseg.quality.verdicts import Choice, Verdicts
from steelseg.report.figures import MANY, NEUTRAL, figure, in_page_style, plain, to_svg
from steelseg.tune import pod
from steelseg.tune.metrics import pair_dice
from steelseg.tune.outcome import counts_of

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)  # of defects found, at which curves are drawn
CHOSEN = "#d55e00"
WORST = 10  # groups in the table


def verdicts(found: Verdicts, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Describe the trade-off: a figure, a row per limit of false alarms, and a note."""
    m2 = found.m2_per_image
    rows = [
        {"limit": limit, "per_m2": float(f"{limit / m2:.3g}") if m2 else None, **_row(choice)}
        for limit, choice in found.trade_off.items()
    ]
    point, note = found.chosen.point, ""
    if point and not point.is_promised:
        note = f"no limit below {np.ceil(1000 * point.least):.0f} per 1,000 can be shown"
        note = found.shortfall() if found.per_1000 else note
    return {
        "figures": [trade_off(found, classes)] if found.chosen.judgement.escapes else [],
        "rows": rows,
        "chosen": _row(found.chosen),
        "asked": found.asked,
        "note": note,
        "m2_per_image": m2,
        "clean_groups": found.clean_groups(),
    }


@in_page_style
def trade_off(found: Verdicts, classes: Sequence[ClassInfo]) -> Markup:
    """Draw escapes over false alarms, overall and by class, with the chosen point."""
    drawing, axes = figure("Escapes", "false alarms per 1,000 clean images", "escapes")
    limits, choices = list(found.trade_off), list(found.trade_off.values())
    if len(classes) <= MANY:
        for at, one in enumerate(classes):
            of_class = [choice.judgement.escapes_of_class[at] for choice in choices]
            known = [estimate.value for estimate in of_class if estimate]
            if known:
                axes.plot(limits, known, color=one.color, linewidth=1, label=plain(one.label))
    every = np.array([choice.judgement.escapes for choice in choices], dtype=np.float64)  # (L, 3)
    value, low, high = every.T
    axes.fill_between(limits, low, high, color=NEUTRAL, alpha=0.25, linewidth=0)
    axes.plot(limits, value, color=NEUTRAL, linewidth=2, label="any defect")
    promised = [choice.is_promised for choice in choices]
    axes.plot(np.array(limits)[promised], value[promised], "o", color=NEUTRAL)
    _mark(axes, found)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(limits, [str(limit) for limit in limits])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylim(0, 1)
    axes.legend()
    return to_svg(drawing, "escapes at each limit of false alarms, with a 95% band")


def defects(
    table: pd.DataFrame, classes: Sequence[ClassInfo], mm_per_pixel: float | None = None
) -> dict[str, Any]:
    """Describe the true components by size: a curve and a row per class.

    `table` is as `tune.outcome.read_validation` returns it. Sizes are in millimetres if the scale
    is known, else in pixels.
    """
    unit = "mm" if mm_per_pixel else "px"
    drawn: list[Markup] = []
    rows: list[dict[str, Any]] = []
    for one in classes:
        chosen = table[table["class_id"] == one.id]
        n = chosen["defect_sizes"].map(len).to_numpy()
        sizes = np.concatenate([np.zeros(0), *chosen["defect_sizes"]]) * (mm_per_pixel or 1)
        is_hit = np.concatenate([np.zeros(0, bool), *chosen["defects_found"]]).astype(bool)
        of_group = np.repeat(chosen["group"].to_numpy(), n)
        curve = pod.fit(sizes, is_hit, of_group, SHARES)
        row: dict[str, Any] = {"class_id": one.id, "n": len(sizes)}
        row |= {"found": rate(is_hit, of_group), "false": chosen["false_components"].mean()}
        if isinstance(curve, str):
            rows.append(row | {"reason": curve})
            continue
        row["largest"] = sizes.max()
        rows.append(row | {"a50": curve.sizes[0.5][0], "a90": curve.sizes[0.9]})
        drawn.append(pod_curve(curve, pod.recall_by_size(sizes, is_hit, of_group), one, unit))
    return {"figures": drawn, "rows": rows, "unit": unit}


@in_page_style
def pod_curve(curve: pod.Pod, bands: Sequence[pod.Band], one: ClassInfo, unit: str) -> Markup:
    """Draw the probability of detection by size, its bound, and the counts."""
    drawing, axes = figure(plain(capitalised(one.name)), f"longer side in {unit}", "found")
    low, high = bands[0].low, bands[-1].high
    ends = min(low, curve.sizes[0.5][0]), max(high, curve.sizes[0.9][0])
    sizes: Float64 = np.geomspace(max(ends[0], min(low, 1)), ends[1], 60)
    axes.plot(sizes, curve(sizes), color=one.color, linewidth=2, label="fitted")
    bounds = [(bound, share) for share, (_, bound) in curve.sizes.items() if bound]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), "--", color=one.color, label="95% bound")
    for band in bands:
        value, below, above = band.found
        middle = float(np.sqrt(band.low * band.high))
        error = [[value - below], [above - value]]
        axes.errorbar(middle, value, error, fmt="o", color=NEUTRAL, markersize=4, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] * 0.8, sizes[-1] * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend(loc="lower right")
    return to_svg(drawing, f"probability of detection of {one.name} by size")


def confusion(table: pd.DataFrame, classes: Sequence[ClassInfo]) -> list[dict[str, Any]]:
    """Tabulate what is found in images that show each class, or none: one row each.

    `found` is the share of these images in which each class has a mask, and `nothing` that in
    which none has; the masks are cross-fitted. Rows without images are left out.
    """
    counts = counts_of(table, honest=True)
    shown, found = counts[..., 2] > 0, counts[..., 1] > 0
    rows: list[dict[str, Any]] = []
    kinds = [(one.id, shown[:, at]) for at, one in enumerate(classes)]
    for class_id, of_kind in [*kinds, (None, ~shown.any(axis=1))]:
        if of_kind.any():
            chosen = found[of_kind]
            rows.append(
                {
                    "class_id": class_id,
                    "images": len(chosen),
                    "found": chosen.mean(axis=0).tolist(),
                    "nothing": float(np.mean(~chosen.any(axis=1))),
                }
            )
    return rows


def worst_groups(
    table: pd.DataFrame, groups: Sequence[str], level: float | None
) -> list[dict[str, Any]]:
    """Tabulate the named groups with the most wrong verdicts, the worst first.

    Args:
        table: as `tune.outcome.read_validation` returns it, N images.
        groups: (N,) names, empty for none.
        level: of the alarms; None for a model without verdicts, which has no such table.
    """
    if level is None:
        return []
    counts = counts_of(table, honest=True)
    is_alarm = (table["confidence"].to_numpy().reshape(counts.shape[:2]) > level).any(axis=1)
    is_defective = (counts[..., 2] > 0).any(axis=1)
    images = pd.DataFrame(
        {
            "group": groups,
            "images": 1,
            "defective": is_defective,
            "escapes": is_defective & ~is_alarm,
            "false_alarms": is_alarm & ~is_defective,
            "dice": pair_dice(counts).mean(axis=1),
        }
    )
    named = images[images["group"] != ""].groupby("group")
    rows = named.agg(dict.fromkeys(images.columns[1:-1], "sum") | {"dice": "mean"}).reset_index()
    wrong = -(rows["escapes"] + rows["false_alarms"])
    order = rows.assign(wrong=wrong).sort_values(["wrong", "dice", "group"])
    worst: Any = order.head(WORST).drop(columns="wrong").to_dict("records")
    return list(worst)


def _row(choice: Choice) -> dict[str, Any]:
    escapes, false_alarms = choice.judgement.escapes, choice.judgement.false_alarms
    promised = choice.is_promised
    return {"level": choice.level, "escapes": escapes, "alarms": false_alarms, "promised": promised}


def _mark(axes: Axes, found: Verdicts) -> None:
    """Draw the chosen point with its interval, if its rate is known."""
    judgement = found.chosen.judgement
    at = found.per_1000 or 1000 * (judgement.false_alarms or Estimate(0, 0, 0)).value
    if judgement.escapes and at:
        value, low, high = judgement.escapes
        error = [[value - low], [high - value]]
        axes.errorbar(at, value, error, fmt="D", color=CHOSEN, capsize=4, label="chosen")
