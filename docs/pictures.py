"""Draws the README's pictures from dvc.yaml and the last run: `python docs/pictures.py`."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

from steelseg.core.arrays import Uint8
from steelseg.core.classes import default_classes
from steelseg.core.params import read_yaml
from steelseg.core.pixels import GREY
from steelseg.data import image_table, label_csv, rle
from steelseg.data.decoding import read
from steelseg.report.drawing import draw

HERE = Path(__file__).parent
DATA = Path("data/raw/sample")
SAVE = {"bbox_inches": "tight", "facecolor": "white", "metadata": {"Date": None}}

Graph = dict[str, set[str]]


def stage_graph(stages: Mapping[str, dict]) -> Graph:
    """Return, for each stage, the stages whose outputs it reads; check_params is left out."""
    owners = {
        name if isinstance(name, str) else next(iter(name)): stage
        for stage, entry in stages.items()
        for kind in ("outs", "metrics")
        for name in entry.get(kind, [])
    }

    def parents(stage: str) -> set[str]:
        deps = [dep.replace("${data_root}/${dataset}", str(DATA)) for dep in stages[stage]["deps"]]
        return {
            o for d in deps for path, o in owners.items() if d == path or d.startswith(path + "/")
        }

    return {stage: parents(stage) for stage in stages if stage != "check_params"}


def without_shortcuts(graph: Graph) -> Graph:
    """Leave out the edges that a longer way says already."""

    def above(stage: str) -> set[str]:
        return graph[stage] | {a for parent in graph[stage] for a in above(parent)}

    return {s: {p for p in ps if not any(p in above(o) for o in ps)} for s, ps in graph.items()}


def draw_stages(path: Path) -> None:
    """Draw the graph of stages, from left to right."""
    graph = without_shortcuts(stage_graph(read_yaml(Path("dvc.yaml"))["stages"]))
    column: dict[str, int] = {}
    for stage in graph:  # dvc.yaml lists parents first
        column[stage] = max((column[p] + 1 for p in graph[stage]), default=0)
    in_column = {c: [s for s in graph if column[s] == c] for c in column.values()}
    at = {
        stage: (1.75 * c, 0.8 * ((len(there) - 1) / 2 - i))
        for c, there in in_column.items()
        for i, stage in enumerate(there)
    }
    figure, axes = plt.subplots(figsize=(1.75 * len(in_column), 1.1))
    box = {"boxstyle": "round,pad=0.45", "facecolor": "#eaf2f8", "edgecolor": "#0072b2"}
    boxes = {
        stage: axes.text(x, y, stage, ha="center", va="center", fontsize=10, bbox=box)
        for stage, (x, y) in at.items()
    }
    figure.canvas.draw()  # which gives the boxes their sizes
    for stage, parents in graph.items():
        for parent in parents:
            ends = {
                k: boxes[s].get_bbox_patch() for k, s in (("patchA", parent), ("patchB", stage))
            }
            arrow = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 2, "shrinkB": 2, **ends}
            axes.annotate("", at[stage], at[parent], arrowprops=arrow)
    axes.set(xlim=(-0.9, 1.75 * (len(in_column) - 1) + 0.9), ylim=(-0.9, 0.9))
    axes.axis("off")
    figure.savefig(path, **SAVE)


def draw_predictions(path: Path, n_images: int = 3) -> None:
    """Draw the contours of the test images that are predicted to show most classes."""
    images = image_table.read(Path("data/test_images.parquet"))
    sizes_hw = dict(zip(images.names, images.sizes_hw, strict=True))
    masks: dict[str, dict[int, Uint8]] = {}
    for row in label_csv.read(Path("submission.csv")).rows:
        masks.setdefault(row.image, {})[row.class_id] = rle.decode(row.rle, sizes_hw[row.image])
    most = sorted(masks, key=lambda name: -sum(mask.any() for mask in masks[name].values()))
    classes = default_classes(masks[most[0]])
    figure, axes = plt.subplots(n_images, 1, figsize=(9, 1.55 * n_images), layout="compressed")
    for axis, name in zip(axes, most, strict=False):
        image = read(DATA / "test_images" / name, GREY).image
        axis.imshow(draw(image, classes, masks[name]))
        axis.axis("off")
    legend = [Patch(color=one.color, label=one.name) for one in classes]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False)
    figure.savefig(path, dpi=90, facecolor="white", pil_kwargs={"quality": 80})


if __name__ == "__main__":
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "steelseg"
    draw_stages(HERE / "stages.svg")
    draw_predictions(HERE / "prediction.jpg")
