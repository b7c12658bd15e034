"""The benchmarks run, and compare ways that give the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from benchmarks import __main__ as command
from benchmarks import epoch_metrics, gpu, loading, notebook_way, training_step, turns
from benchmarks.inputs import LARGE, TINY, components, data_set, many_times
from benchmarks.table import Row, as_markdown
from steelseg.core.device import Gpus, has_gpu
from steelseg.core.params import load
from steelseg.data import rle
from steelseg.data.cache import Cache
from steelseg.predict.postprocess import ClassRule, postprocess
from steelseg.train.auto import Fingerprint, Setting, TrainParams, resolve


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
    """The ratio is theirs divided by ours, and of a rate the reverse."""
    reached, missed = Row("x", 0.5, "y", 1.0, 2), Row("x", 0.5, "y", 1.0, 2.1)
    assert (reached.verdict, missed.verdict) == ("yes", "NO")
    assert "| x    | 500 ms | y             | 1 s    | 2.00  | 2      | yes     |" in as_markdown(
        [reached]
    )
    assert Row("x", 5, "y", 2, 2, "images/s").verdict == "yes"
    assert "| x    | 3 %  |               |        |       |        |         |" in as_markdown(
        [Row("x", 3, unit="%")]
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


def test_what_a_gpu_is_measured_by_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU, with tiny inputs: training in turns with other ways, and prediction."""
    out = tmp_path / "results.json"
    command.main(["--gpu", "--tiny", "--out", str(out)])
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert all(row["ours"] > 0 for row in rows.values())
    assert rows["training, whole images"]["other"] == "the notebook, 2 steps of 4"
    assert rows["training, crops: share of the time that waits for data"]["ours"] < 50
    assert {f"prediction, JPEG to findings, {n} at once" for n in (1, 8, 16)} <= rows.keys()
    assert command.machine() in capsys.readouterr().out


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """One line, a failure, and no results."""
    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="needs a GPU that PyTorch can use, and there is none"):
        command.main(["--gpu", "--out", str(tmp_path / "results.json")])
    assert not list(tmp_path.iterdir())


def test_a_gpu_is_timed_over_200_steps_and_more() -> None:
    """An epoch of what `auto` makes of as many images as Severstal's, on a card of 80 GiB."""
    params = load(TrainParams, "train", Path(__file__).parents[1] / "params.yaml")
    n_images = LARGE.n_images * LARGE.n_copies
    data = Fingerprint(LARGE.size_hw, n_images - n_images // 5, ())
    setting = Setting(Gpus(1, 80 * 2**30, bf16=True), "tu-tf_efficientnet_lite0", pretrained=False)
    config, _ = resolve(params, data, setting)
    assert abs(n_images - 12_568) < 50
    assert data.n_images * config.crops_per_image // config.batch_size > 200
    assert data.n_images // (gpu.BATCH_SIZE * gpu.ACCUMULATE) > 200
    assert LARGE.n_steps > 200


class Event:
    """Stands in for a GPU's event; each is two seconds after the one before."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        """Note the time."""
        Event.now = self.at = Event.now + 2

    def elapsed_time(self, later: "Event") -> float:
        """Tell the milliseconds to a later event."""
        return 1000 * (later.at - self.at)

    now = 0.0


def test_a_gpu_waits_from_the_end_of_a_step_to_the_next_ones_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And from the epoch's start to the first; a validation that follows does not count."""
    cuda = SimpleNamespace(Event=Event, synchronize=lambda: None)
    cuda.max_memory_allocated, cuda.reset_peak_memory_stats = lambda: 7, lambda: None
    monkeypatch.setattr(training_step, "has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda", cuda)
    turns = training_step.Turns({"other": lambda: None})
    for _ in range(2):
        turns.on_train_epoch_start()
        for _ in range(3):
            turns.on_train_batch_start()
            turns.on_train_batch_end()
        turns.on_validation_start()
        turns.on_train_epoch_end()
    assert (turns.found["waiting"], turns.found["memory"]) == ([6.0, 6.0], [7, 7])
    assert {len(values) for values in turns.found.values()} == {2}


def test_a_cache_holds_its_images_many_times(tiny_cache: Cache, tmp_path: Path) -> None:
    """Under other names of its shards, and verified as any cache."""
    again = many_times(tiny_cache, 3, tmp_path / "many")
    assert again.names == 3 * tiny_cache.names
    assert np.array_equal(again.masks(25), tiny_cache.masks(1))
