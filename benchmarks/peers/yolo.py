"""Ultralytics' YOLO11n-seg and YOLO26n-seg with its own defaults, from scratch.

Its pretrained weights are on a hub; the configurations are in the package.
"""

import json
from typing import Any

import numpy as np
from ultralytics import YOLO

from benchmarks.peers.job import Image, Job, Maps, Predict, cpu_seconds, run

LEAST_CONFIDENCE = 0.01  # of an instance; the confidence itself is tuned later


class Schedule:
    """Fits the number of epochs to the budget, as Ultralytics' own `time` does by the clock."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = 0.0

    def on_train_start(self, _: Any) -> None:
        """Start the watch."""
        self.started = cpu_seconds()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Plan as many more whole epochs as the rest of the budget has room for."""
        n_done, now = trainer.epoch + 1, cpu_seconds()
        n_more = int((self.job.cpu_seconds - now) / ((now - self.started) / n_done))
        trainer.epochs = trainer.args.epochs = n_done + max(n_more, 0)
        trainer._setup_scheduler()
        trainer.scheduler.last_epoch = trainer.epoch
        trainer.stop |= n_more < 1

    def on_train_batch_end(self, trainer: Any) -> None:
        """Stop where that was too many."""
        trainer.stop |= self.job.share() >= 1


def train(job: Job) -> None:
    """Train, without validation after each epoch, which costs a tenth: the last weights count."""
    lists = {"train": job.train, "val": job.validation[:1]}  # it insists on some validation
    for name, ids in lists.items():
        text = "".join(f"{job.path('images', one)}\n" for one in ids)
        (job.folder / f"{name}.txt").write_text(text)
    names = {i: f"class {c}" for i, c in enumerate(job.classes)}
    data = {"path": str(job.folder), "train": "train.txt", "val": "val.txt", "names": names}
    (job.folder / "data.yaml").write_text(json.dumps(data))
    model, schedule = YOLO(f"{job.peer}.yaml"), Schedule(job)
    for event in ("on_train_start", "on_fit_epoch_end", "on_train_batch_end"):
        model.add_callback(event, getattr(schedule, event))
    model.train(
        data=str(job.folder / "data.yaml"),
        imgsz=job.side,
        batch=16,
        epochs=100,
        seed=job.seed,
        device="cpu",
        val=False,
        plots=False,
        project=str(job.folder),
        name="run",
        exist_ok=True,
    )


def load(job: Job) -> Predict:
    """Return the model: a pixel's probability is the highest confidence of an instance there."""
    model = YOLO(job.folder / "run" / "weights" / "last.pt")

    def predict(image_hwc: Image) -> Maps:
        (found,) = model.predict(
            image_hwc,
            imgsz=job.side,
            conf=LEAST_CONFIDENCE,
            retina_masks=True,
            device="cpu",
            verbose=False,
        )
        maps_chw = np.zeros((len(job.classes), *image_hwc.shape[:2]), dtype=np.float32)
        for box, mask_hw in zip(found.boxes, found.masks.data if found.masks else [], strict=True):
            of_class = maps_chw[int(box.cls)]
            np.maximum(of_class, mask_hw.numpy() * float(box.conf), out=of_class)
        return maps_chw

    return predict


if __name__ == "__main__":
    run("ultralytics-opencv-headless", train, load)
