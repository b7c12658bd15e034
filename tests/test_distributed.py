"""Two gloo processes train as one does, score every image once, and survive a kill."""

import json
import sys
from pathlib import Path

import distributed_training as tiny
import pytest
from faults.processes import Ended, finish, start
from servers import free_port
from tiny_training import ROOT

from steelseg.data.cache import Cache
from steelseg.train.keeper import newest_checkpoint
from steelseg.train.totals import TIMINGS

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("one_thread")]

History = list[dict[str, float]]


def two_processes(cache: Cache, work: Path, *trainings: str) -> Ended:
    """Run tiny trainings by torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    torchrun += ["--master_port", str(free_port()), tiny.__file__]
    variables = {"PYTHONPATH": str(ROOT / "src")}
    command = [*torchrun, str(cache.folder), str(work), *trainings]
    log = work / "log"
    return finish(start(work, command, log, **variables), log)


def seen(work: Path, training: str) -> tuple[History, str]:
    history, weights = json.loads((work / f"{training}.json").read_text())
    return without_timings(history), weights


def without_timings(history: History) -> History:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in history]


@pytest.fixture(scope="module")
def trained(tiny_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three trainings by two processes, `resumed` being one that had been killed.

    `moving` is the same without a break, and in `still` the weights stay what they are.
    """
    work = tmp_path_factory.mktemp("trained")
    killed = two_processes(tiny_cache, work, "resumed", "killed")
    assert killed.returncode != 0
    assert not (work / "resumed.json").exists()
    newest = newest_checkpoint(work / "resumed")
    assert newest is not None
    assert newest.stem == "epoch-0000"
    ended = two_processes(tiny_cache, work, "resumed", "moving", "still")
    assert ended.returncode == 0, ended.output
    assert ended.output.count("resuming after epoch-0000") == 1  # one process alone speaks
    assert ended.output.count("epoch 1/2:") == 2
    return work


def test_half_batches_give_the_losses_of_whole_ones(
    tiny_cache: Cache, trained: Path, tmp_path: Path
) -> None:
    """Three steps an epoch from the same crops: loss and metrics are those of one process."""
    alone = without_timings(tiny.run(tiny_cache, tmp_path, 1, tiny.MOVING).history)
    together, _ = seen(trained, "moving")
    assert len(alone) == len(together) == 2
    for one, two in zip(alone, together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)
        assert two == pytest.approx(one, abs=1e-3)


def test_every_validation_image_is_counted_once(
    tiny_cache: Cache, trained: Path, tmp_path: Path
) -> None:
    """With weights that stay, five images shared out unevenly give exactly the same metrics."""
    alone = without_timings(tiny.run(tiny_cache, tmp_path, 1, tiny.STILL).history)
    together, _ = seen(trained, "still")
    for one, two in zip(alone, together, strict=True):
        exact = {k for k in one if k.startswith("val_") and k != "val_loss"}
        assert len(exact) > 5
        assert {k: two[k] for k in exact} == {k: one[k] for k in exact}
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-6)


def test_a_killed_training_of_two_goes_on_bit_identically(trained: Path) -> None:
    """Killed after the first epoch, both go on from its checkpoint to the same weights."""
    assert seen(trained, "resumed") == seen(trained, "moving")
