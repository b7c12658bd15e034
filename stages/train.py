"""Train the network on all folds but one, and keep the weights that are best on that one."""

from pathlib import Path

import lightning as L

from steelseg.core.checkpoints import work_folder
from steelseg.core.device import is_first_process
from steelseg.core.files import write_json
from steelseg.core.params import load
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run
from steelseg.train.auto import TrainParams
from steelseg.train.loop import train
from steelseg.train.plan import plan
from steelseg.train.totals import without_timings, write_history

FOLDS = Path("data/folds.parquet")
MODEL = Path("models")


def main() -> None:
    """Write the model, the history of the epochs and the best epoch's scores."""
    cache, first = Cache(Path("data/cache")), is_first_process()
    planned = plan(load(ModelConfig), load(TrainParams, "train"), cache, FOLDS)
    network, config = planned.network, planned.config
    for line in planned.describe() if first else ():
        print(line)
    with (
        work_folder("train", planned.identity, owner=first) as folder,
        stage_run("train", folder, planned.facts, active=first) as tracker,
    ):
        tracker.params(planned.params)
        L.seed_everything(config.seed, verbose=False)
        segmenter = models.build(network, len(cache.classes), cache.mean, cache.std, cache.pixels)
        keeper = train(segmenter, config, planned.data, folder, tracker.epoch)
        if not first:
            return
        segmenter.network.load_state_dict(keeper.best_weights)
        of_data = {"classes": cache.classes, "size_hw": cache.typical_size_hw}
        facts = {**of_data, "class_infos": cache.class_infos, **planned.facts}
        models.save_model(MODEL, segmenter, network, **facts)
        write_history(Path("plots/train.csv"), keeper.history)
        scores = {"best_epoch": keeper.best_epoch, **without_timings(keeper.kept_scores)}
        write_json(Path("metrics/train.json"), scores)
        tracker.metrics({f"best_{name}": value for name, value in scores.items()})


if __name__ == "__main__":
    run(main)
