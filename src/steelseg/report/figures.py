"""Matplotlib figures as inline SVG, in the colours of the page, light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steelseg.core.classes import ClassInfo

_INK = "#010203"  # placeholder of the page's text colour
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "steelseg",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor"], _INK),
    **dict.fromkeys(["xtick.color", "ytick.color"], _INK),
}
in_page_style = mpl.rc_context(_STYLE)
"""Decorates drawing functions: legends and labels get their colours when they are made."""
SIZE_INCHES = (4.2, 2.7)
NEUTRAL = "#8a8f98"  # for elements of no class
SHORT = 6  # characters of class names that are side by side
LONGEST = 30  # characters of a class's name in a figure
MANY = 12  # classes; figures have no room for more names, and the page has a legend of all


def figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Create a figure with one set of axes; call it `in_page_style`."""
    drawing = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = drawing.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return drawing, axes


def name_colours(axes: Axes, n_classes: int, **options: Any) -> None:
    """Add a legend of the drawn classes, if they are not too many."""
    if n_classes <= MANY:
        n_columns = 1 if n_classes <= MANY // 2 else 2
        axes.legend(title="class", ncols=n_columns, **options)


def name_bars(axes: Axes, classes: Sequence[ClassInfo]) -> None:
    """Name bars, which stand at 0, 1, 2, ..., by their classes, or every so many-th."""
    step = -(-len(classes) // MANY)
    labels = [plain(one.label) for one in classes[::step]]
    axes.set_xticks(range(0, len(classes), step), labels)
    if max(map(len, labels), default=0) > SHORT:
        axes.tick_params(axis="x", labelrotation=20)


def plain(text: str) -> str:
    """Turn a name into a label: short, not a formula, and not hidden like `_name`."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return " " * text.startswith("_") + text.replace("$", r"\$")


def to_svg(drawing: Figure, description: str) -> Markup:
    """Write a figure as an `<svg>` element that scales with its column.

    Args:
        drawing: the figure.
        description: its content, for screen readers.
    """
    file = io.StringIO()
    drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r' id="[A-Za-z]+_\d+"', "", text)  # `axes_1` in every figure
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", label, 1))  # noqa: S704  # matplotlib escapes what it writes
