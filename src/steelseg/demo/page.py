"""A page to try the model on images; Streamlit runs this file (see `command.py`)."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from steelseg.core.arrays import Float32, Pixels, Uint8
from steelseg.core.classes import ClassInfo, capitalised
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.pixels import PixelFormat, size_of
from steelseg.data import label_csv, rle
from steelseg.data.images import SUFFIXES, read_bytes
from steelseg.data.label_csv import Row
from steelseg.demo.samples import Sample, find_samples, table_of, to_masks, to_thumbnail
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Finding, Model
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.tiles import is_large
from steelseg.quality.intervals import Estimate
from steelseg.quality.verdicts import Choice, Verdicts
from steelseg.report import gallery
from steelseg.report.drawing import draw

AREA_STEP = 25  # pixels
FALSE_ALARMS = "False alarms per 1,000 clean images"
ALARMS_HELP = (
    "Moves the confidence above which a class is an alarm. The rates are those of validation "
    "images that had no part in choosing it."
)
COLUMNS = 3
DARK = 200  # sum of red, green and blue, below which text is white
CHOSEN = "chosen"  # session key of the path of a sample; unset for an uploaded image
# tall pictures fit the screen; the button below a thumbnail covers it, so that a click on the image
# clicks the button
STYLE = """<style>
.stImage img { max-height: 75vh; object-fit: contain; object-position: left; }
[class*="st-key-sample"] img { max-height: 120px; }
.stColumn:has([class*="st-key-sample"]) { min-width: 0; }
[class*="st-key-sample"] { position: relative; }
[class*="st-key-sample"] :is(:has(> .stButton), .stButton, .stButton *) { position: static; }
[class*="st-key-sample"] .stButton button::after { content: ""; position: absolute; inset: 0; }
</style>"""
MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")


class Chosen(NamedTuple):
    """The image to predict: its name, its file's bytes, and its RLEs if annotated."""

    name: str
    data: bytes
    truth: dict[int, str] | None = None
    ignored: str = ""


def predict(data: bytes, _model: Model) -> tuple[Pixels, Float32 | list[Finding]]:
    """Decode an image and run the network: (H, W) or (N, H, W), and maps (C, H, W) float32.

    The maps of an image that is predicted by tiles are too large to keep; instead the findings by
    the tuned rules are returned.
    """
    pixels = _model.read(data)
    large = is_large(size_of(pixels))
    return pixels, _model.predict(data) if large else _model.probabilities(data)


def plain(text: str) -> str:
    """Escape Markdown."""
    return MARKDOWN.sub(r"\\\1", text)


def choose_image(samples: Mapping[str, Sequence[Sample]], pixels: PixelFormat) -> Chosen | None:
    """Show the images to choose from, and return the last one clicked or uploaded."""
    state = st.session_state
    file = st.file_uploader(
        "An image of a surface",
        type=sorted(SUFFIXES),
        on_change=lambda: state.pop(CHOSEN, None),
    )
    st.html(STYLE)
    for kind, offered in samples.items():
        st.caption(kind)
        for start in range(0, len(offered), COLUMNS):
            columns = st.columns(COLUMNS, wrap=False)
            for column, sample in zip(columns, offered[start : start + COLUMNS], strict=False):
                _offer(column, sample, pixels)
    for sample in (s for offered in samples.values() for s in offered):
        if str(sample.path) == state.get(CHOSEN):
            return Chosen(sample.path.name, read_bytes(sample.path), sample.truth, sample.ignored)
    return Chosen(file.name, file.getvalue()) if file else None


def _offer(column: Any, sample: Sample, pixels: PixelFormat) -> None:
    """Show a thumbnail; a click on it chooses the image. Unreadable images are left out."""
    path, state = str(sample.path), st.session_state
    try:
        thumbnail = st.cache_data(show_spinner=False)(to_thumbnail)(read_bytes(sample.path), pixels)
    except BadInput:
        return
    box = column.container(key=f"sample {path}", gap=None)
    box.image(thumbnail, width="stretch", alt=f"thumbnail of {sample.path.name}")
    label = plain(sample.path.name)
    label = f"**{label}**" if state.get(CHOSEN) == path else label
    box.button(label, path, type="tertiary", on_click=state.__setitem__, args=(CHOSEN, path))


def choose_rules(model: Model, n_pixels: int) -> dict[int, ClassRule]:
    """Show the controls of each class in the sidebar, and return the rules they are set to."""
    chosen = {}
    for one in model.class_infos:
        box = st.sidebar.container(border=True)
        box.markdown(f"**{plain(capitalised(one.name))}**")
        box.html(f'<div style="height:4px;background:{one.color}"></div>')
        chosen[one.id] = _choose_rule(box, one.id, model.rules.by_class[one.id], n_pixels)
    return chosen


def _choose_rule(box: Any, class_id: int, tuned: ClassRule, n_pixels: int) -> ClassRule:
    def area(label: str, value: int, meaning: str) -> int:
        key = f"{label} {class_id}"
        most = max(n_pixels, value)
        return int(box.number_input(label, 0, most, value, AREA_STEP, key=key, help=meaning))

    def share(label: str, value: float, meaning: str) -> float:
        key = f"{label} {class_id}"
        return float(box.slider(label, 0.0, 0.99, value, 0.01, key=key, help=meaning))

    return ClassRule(
        enabled=box.checkbox("Predicted at all", tuned.enabled, key=f"enabled {class_id}"),
        threshold=share("Threshold", tuned.threshold, "probability above which a pixel counts"),
        min_component_area=area(
            "Smallest component", tuned.min_component_area, "smaller connected regions are dropped"
        ),
        min_area=area("Smallest area", tuned.min_area, "a smaller mask is emptied"),
        gate=share("Gate", tuned.gate, "the mask is emptied unless some pixel is above this"),
    )


def choose_level(verdicts: Verdicts) -> float:
    """Show the slider of false alarms and the escapes there; return the level of alarms."""
    choices: dict[Any, Choice] = dict(verdicts.trade_off)
    asked: Any = float(f"{verdicts.per_1000:.4g}") if verdicts.per_1000 else "as tuned"
    if asked not in choices:
        choices = {asked: verdicts.chosen, **choices}
    box = st.sidebar.container(border=True)
    chosen = box.select_slider(FALSE_ALARMS, list(choices), asked, help=ALARMS_HELP)
    choice = choices[chosen]
    box.markdown(plain(_rate("Escapes", choice.judgement.escapes)))
    box.markdown(plain(_rate("False alarms seen", choice.judgement.false_alarms)))
    if choice.is_promised:
        box.caption(f"Promised with {verdicts.asked.confidence:.0%} confidence, on new groups.")
    elif choice.point:
        reason = verdicts.shortfall() if chosen in verdicts.trade_off else ""
        box.caption(plain(f"Not promised{': ' * bool(reason)}{reason}."))
    else:
        box.caption("Nothing is promised.")
    return choice.level


def _rate(name: str, rate: Estimate | None) -> str:
    if rate is None:
        return f"{name}: no image to count on"
    return f"{name}: {rate.value:.1%} (95%: {rate.low:.1%} to {rate.high:.1%})"


def show_verdict(findings: Sequence[Finding]) -> None:
    """Show whether the image is in order, or which classes are alarms."""
    alarms = [f"{one.class_name} ({one.confidence:.2f})" for one in findings if one.alarm]
    if alarms:
        st.error(plain(f"Not in order: {', '.join(alarms)}"))
    else:
        st.success("In order")


def show(
    name: str,
    image: Pixels,
    classes: Sequence[ClassInfo],
    findings: Sequence[Finding],
    truth: Mapping[int, Uint8] | None,
    ignored_hw: Uint8 | None,
) -> None:
    """Show the picture, one row per class, and the button that downloads the rows."""
    masks = {found.class_id: found.mask for found in findings}
    meaning = "outlined what the model finds" + ", tinted what is annotated" * (truth is not None)
    meaning += ", hatched what is ignored" * (ignored_hw is not None)
    picture = gallery.shrink(draw(image, classes, masks, truth, ignored_hw))
    st.image(picture, caption=f"{plain(name)}: {meaning}", width="stretch")
    table = pd.DataFrame(table_of(findings, truth, ignored_hw))
    st.dataframe(_coloured(table, classes), hide_index=True)
    text = label_csv.to_text(Row(name, found.class_id, found.rle) for found in findings)
    file_name = f"{Path(name).stem}.csv"
    st.download_button("Download the RLE rows", text, file_name, "text/csv", on_click="ignore")


def _coloured(table: pd.DataFrame, classes: Sequence[ClassInfo]) -> Any:
    """Colour the cells of the classes."""
    styles: dict[object, str] = {
        one.id: f"background-color:{one.color};color:{'black' if sum(one.rgb) > DARK else 'white'}"
        for one in classes
    }
    styled = table.style.map(styles.get, subset=["class"])
    formats = {"mm²": "{:,.4g}", "share": "{:.2%}", "confidence": "{:.3f}", "Dice": "{:.3f}"}
    columns = [name for name in table.columns if name != "name"]
    return styled.format({name: formats.get(name, "{:,}") for name in columns})


def page(folder: str, runtime: str) -> None:
    """Show the page."""
    st.set_page_config("steelseg", layout="wide")
    st.title("Defects on steel")
    try:
        inference = InferenceConfig.model_validate({"runtime": runtime})
        model = st.cache_resource(Model.open)(folder, inference=inference)
    except SteelsegError as error:
        st.error(plain(f"There is no model to try: {error}"))
        return
    try:
        samples = find_samples(Path(), model.classes)
    except SteelsegError as error:
        st.warning(plain(f"No images to choose from: {error}"))
        samples = {}
    image = choose_image(samples, model.card.pixels)
    verdicts = model.rules.verdicts
    level = choose_level(verdicts) if verdicts else None
    if image is None:
        choose_rules(model, 0)
        return
    try:
        cached = st.cache_data(max_entries=4, show_spinner="predicting")(predict)
        pixels, found = cached(image.data, model)
    except SteelsegError as error:
        st.error(plain(f"{image.name}: {error}"))
        return
    truth = None if image.truth is None else to_masks(image.truth, size_of(pixels))
    if isinstance(found, list):
        st.info("The image is too large to try other rules on it: these are the tuned ones.")
    else:
        found = model.findings(found, choose_rules(model, math.prod(size_of(pixels))))
    if level is not None:
        found = [one._replace(alarm=one.confidence > level) for one in found]
        show_verdict(found)
    ignored_hw = rle.decode(image.ignored, size_of(pixels)) if image.ignored else None
    show(image.name, pixels, model.class_infos, found, truth, ignored_hw)


if __name__ == "__main__":
    page(*sys.argv[1:])
