"""A page to try the model on an image of one's own; Streamlit runs this file (see `command.py`)."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from steelseg.core.arrays import Float32
from steelseg.core.errors import SteelsegError
from steelseg.data.images import SUFFIXES, GreyImage, decode_grey
from steelseg.data.label_csv import CLASS, IMAGE, PIXELS
from steelseg.predict.model import Finding, Model
from steelseg.predict.postprocess import ClassRule
from steelseg.report.drawing import class_colours, draw, hexadecimal

AREA_STEP = 25  # pixels


def predict(data: bytes, _model: Model) -> tuple[GreyImage, Float32]:
    """Decode an image and run the network: (H, W) uint8 and (C, H, W) float32."""
    return decode_grey(data), _model.probabilities(data)


def to_csv(image: str, rles: Mapping[int, str]) -> str:
    """Write a row for each class, as in a submission."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, CLASS, PIXELS])
    writer.writerows((image, class_id, rle) for class_id, rle in rles.items())
    return text.getvalue()


def choose_rules(tuned: Mapping[int, ClassRule], n_pixels: int) -> dict[int, ClassRule]:
    """Show the controls of each class in the sidebar, and return the rules that they stand at."""
    colours = class_colours(list(tuned))
    chosen = {}
    for class_id, rule in tuned.items():
        box = st.sidebar.container(border=True)
        box.markdown(f"**Class {class_id}**")
        box.html(f'<div style="height:4px;background:{hexadecimal(colours[class_id])}"></div>')
        chosen[class_id] = _choose_rule(box, class_id, rule, n_pixels)
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
            "Least component", tuned.min_component_area, "smaller connected regions are dropped"
        ),
        min_area=area("Least area", tuned.min_area, "a smaller mask is emptied"),
        gate=share("Gate", tuned.gate, "the mask is emptied unless some pixel is above this"),
    )


def show(name: str, image_hw: GreyImage, findings: Sequence[Finding]) -> None:
    """Show the picture, a row for each class, and the button that downloads the rows."""
    masks = {found.class_id: found.mask for found in findings}
    st.image(draw(image_hw, masks), caption=name, width="stretch")
    rows = [
        {"class": f.class_id, "area in pixels": f.area, "confidence": round(f.confidence, 4)}
        | {"RLE": f.rle}
        for f in findings
    ]
    st.dataframe(rows, hide_index=True)
    text = to_csv(name, {found.class_id: found.rle for found in findings})
    file_name = f"{Path(name).stem}.csv"
    st.download_button("Download the RLE rows", text, file_name, "text/csv", on_click="ignore")


def page(folder: str) -> None:
    """Show the page."""
    st.set_page_config("steelseg", layout="wide")
    st.title("Defects on steel")
    try:
        model = st.cache_resource(Model.open)(folder)
    except SteelsegError as error:
        st.error(f"There is no model to try: {error}")
        return
    types = sorted(SUFFIXES)
    file = st.file_uploader("An image of a surface, 8 bits a channel", type=types)
    if file is None:
        choose_rules(model.rules.by_class, 0)
        return
    try:
        cache: Any = st.cache_data
        cached = cache(predict, max_entries=4, show_spinner="predicting")
        image_hw, maps_chw = cached(file.getvalue(), _model=model)
    except SteelsegError as error:
        st.error(f"{file.name}: {error}")
        return
    rules = choose_rules(model.rules.by_class, image_hw.size)
    show(file.name, image_hw, model.findings(maps_chw, rules))


if __name__ == "__main__":
    page(sys.argv[1])
