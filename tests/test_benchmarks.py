"""The benchmarks run, and compare ways that give the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from benchmarks import __main__ as command
from benchmarks import epoch_metrics, gpu, loading, notebook_way, turns
from benchmarks.inputs import TINY, components, data_set
from benchmarks.table import Row, as_markdown
from steelseg.core.device import has_gpu
from steelseg.data import rle
from steelseg.predict.postprocess import ClassRule, postprocess


@given(hnp.arrays(np.uint8, (5, 7), elements={"min_value": 0, "max_value": 1}))
def test_the_notebooks_run_lengths_are_ours(mask_hw: np.ndarray) -> None:
    """Both encode alike, and decode what the other encoded; the notebook fails on an empty one."""
    text = rle.encode(mask_hw)
    assert notebook_way.encode(mask_hw) == text
    if text:
        assert np.array_equal(notebook_way.decode(text, (5, 7)), mask_hw)


@pytest.mark.parametrize("n", [0, 1, 20])
@pytest.mark.parametrize("min_area", [0, 3, 40])
def test_the_notebooks_components_are_ours(n: int, min_area: int) -> None:
    """Its areas are those of *more* than so many pixels, ours of at least so many."""
    probability_hw = components(n, (64, 96))
    theirs = notebook_way.encode(notebook_way.postprocess(probability_hw, 0.5, min_area))
    assert postprocess(probability_hw, ClassRule(min_component_area=min_area + 1)).rle == theirs


def test_a_map_has_as_many_components_as_asked_for() -> None:
    """What the rows are named by is what they measure."""
    for n in (0, 1, 20, 200):
        mask_hw = components(n, (256, 1600)) > 0.5
        columns = np.flatnonzero(mask_hw.any(axis=0))
        assert (len(columns) > 0) == (n > 0)
        assert notebook_way.cv2.connectedComponents(mask_hw.view(np.uint8))[0] == n + 1


def test_the_ways_to_score_and_to_load_agree() -> None:
    """Dice of the notebook's meter and ours; images and masks from the cache, csv and JPEG."""
    batches = epoch_metrics.stream(TINY)
    epoch_metrics.check_equal(epoch_metrics.ours(batches), epoch_metrics.notebooks(batches))
    with data_set(TINY) as data:
        loading.check_equal(loading.ours(data), loading.notebooks(data), loading.OnTheFly(data))


def test_every_way_has_its_turn() -> None:
    """Calls alternate, after a first one each that is not counted."""
    calls: list[str] = []
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "SHORTEST", 0)
        assert set(turns.in_turns(ways, rounds=3)) == {"a", "b"}
    assert calls == ["a", "b"] * 4


def test_a_row_says_whether_it_reaches_its_target() -> None:
    """The ratio is theirs divided by ours."""
    reached, missed = Row("x", 0.5, "y", 1.0, 2), Row("x", 0.5, "y", 1.0, 2.1)
    assert (reached.verdict, missed.verdict) == ("yes", "NO")
    assert "| x    | 500 ms | y             | 1 s    | 2.00  | 2      | yes     |" in as_markdown(
        [reached]
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools with NumPy 2
@pytest.mark.parametrize("group", command.GROUPS)
def test_every_group_runs_on_tiny_inputs(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each prints its rows and writes them as JSON."""
    out = tmp_path / "results.json"
    command.main(["--tiny", "--only", group, "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert rows
    printed = capsys.readouterr().out
    assert all(row["ratio"] > 0 and row["what"] in printed for row in rows)


def test_the_notebooks_epoch_runs() -> None:
    """What a GPU is measured against trains, on a CPU too."""
    with data_set(TINY) as data:
        scores = gpu.NotebookEpoch(data, "cpu")()
    assert np.isfinite(scores["loss"])
    assert torch.is_grad_enabled()


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and no results."""
    if has_gpu():
        pytest.skip("there is a GPU")
    command.main(["--gpu", "--out", str(tmp_path / "results.json")])
    assert capsys.readouterr().out.startswith("no GPU here")
    assert not list(tmp_path.iterdir())
