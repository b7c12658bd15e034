"""A page to try the model on an image of one's own; Streamlit runs this file (see `demo.py`)."""

import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from steelseg.core.errors import SteelsegError
from steelseg.core.files import sha256
from steelseg.data.images import SUFFIXES, GreyImage, decode_grey
from steelseg.data.label_csv import CLASS, IMAGE, PIXELS
from steelseg.predict.ensemble import open_ensemble
from steelseg.predict.inference import Runtime, probability_maps
from steelseg.predict.postprocess import ClassRule, clean_mask, postprocess
from steelseg.predict.rules import read_rules
from steelseg.predict.views import Probabilities
from steelseg.report.drawing import class_colours, draw, hexadecimal

Rules = dict[int, ClassRule]
AREA_STEP = 25  # pixels


class Model(NamedTuple):
    """The network and the tuned rule of each class, in channel order."""

    runtime: Runtime
    rules: Rules


def load_model(folder: str) -> Model:
    """Load the model of a folder; raises `BadInput` where there is none."""
    weights = Path(folder, "model.safetensors")
    if not weights.is_file():
        raise SteelsegError(f"{weights}: no such file; `make repro` trains a model first")
    rules = read_rules(Path(folder, "postprocess.json"), sha256(weights))
    return Model(open_ensemble(Path(folder), rules.views, "auto"), rules.by_class)


def predict(data: bytes, _model: Model) -> tuple[GreyImage, Probabilities]:
    """Decode an image and run the network: (H, W) uint8 and (C, H, W) float32."""
    image_hw = decode_grey(data)
    ((_, maps_chw),) = probability_maps([image_hw], lambda image: image, _model.runtime, 1)
    return image_hw, maps_chw


def to_csv(image: str, rles: Mapping[int, str]) -> str:
    """Write a row for each class, as in a submission."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, CLASS, PIXELS])
    writer.writerows((image, class_id, rle) for class_id, rle in rles.items())
    return text.getvalue()


def choose_rules(tuned: Rules, n_pixels: int) -> Rules:
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


def show(name: str, image_hw: GreyImage, maps_chw: Probabilities, rules: Rules) -> None:
    """Show the picture, a row for each class, and the button that downloads the rows."""
    maps = dict(zip(rules, maps_chw, strict=True))
    masks = {c: clean_mask(maps[c], rule) for c, rule in rules.items()}
    st.image(draw(image_hw, masks), caption=name, width="stretch")
    found = {c: postprocess(maps[c], rule) for c, rule in rules.items()}
    rows = [
        {"class": c, "area in pixels": p.area, "confidence": round(p.confidence, 4), "RLE": p.rle}
        for c, p in found.items()
    ]
    st.dataframe(rows, hide_index=True)
    rles = {c: p.rle for c, p in found.items()}
    file_name = f"{Path(name).stem}.csv"
    text = to_csv(name, rles)
    st.download_button("Download the RLE rows", text, file_name, "text/csv", on_click="ignore")


def page(folder: str) -> None:
    """Show the page."""
    st.set_page_config("steelseg", layout="wide")
    st.title("Defects on steel")
    try:
        model = st.cache_resource(load_model)(folder)
    except SteelsegError as error:
        st.error(f"There is no model to try: {error}")
        return
    types = sorted(SUFFIXES)
    file = st.file_uploader("An image of a surface, 8 bits a channel", type=types)
    if file is None:
        choose_rules(model.rules, 0)
        return
    try:
        cache: Any = st.cache_data
        cached = cache(predict, max_entries=4, show_spinner="predicting")
        image_hw, maps_chw = cached(file.getvalue(), _model=model)
    except SteelsegError as error:
        st.error(f"{file.name}: {error}")
        return
    show(file.name, image_hw, maps_chw, choose_rules(model.rules, image_hw.size))


if __name__ == "__main__":
    page(sys.argv[1])
