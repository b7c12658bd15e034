"""nnU-Net v2, 2D: its own plans, augmentation, loss and optimizer, and mirrored prediction.

Its schedule of 1,000 epochs is squeezed into the budget. Its classes exclude each other: of several
at one pixel, the last counts.
"""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.peers.job import Image, Job, Maps, Predict, run

DATASET = "Dataset001_steel"
BATCH_SIZE = 8  # it plans for a GPU; that leaves too few steps


def train(job: Job) -> None:
    """Plan, preprocess and train."""
    folders = _set_folders(job)
    _write_raw(job, folders["nnUNet_raw"] / DATASET)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([1], num_processes=1)
    api.plan_experiments([1])
    api.preprocess([1], configurations=["2d"], num_processes=[1])
    preprocessed = folders["nnUNet_preprocessed"] / DATASET
    split = {"train": job.train, "val": job.validation[:1]}  # it insists on some validation
    (preprocessed / "splits_final.json").write_text(json.dumps([split]))
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["batch_size"] = BATCH_SIZE
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    _fit(job, {**plans, "continue_training": False}, dataset)


def _set_folders(job: Job) -> dict[str, Path]:
    """Tell nnU-Net where its folders are."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    folders = {name: job.folder / name for name in names}
    os.environ.update({name: str(path) for name, path in folders.items()})
    return folders


def _write_raw(job: Job, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    ids = [*job.train, job.validation[0]]
    for name in ids:
        (folder / "imagesTr" / f"{name}_0000.png").symlink_to(job.path("images", name))
        masks_hwc = job.masks(name)
        label_hw = (masks_hwc * np.arange(1, masks_hwc.shape[2] + 1)).max(axis=2)
        cv2.imwrite(str(folder / "labelsTr" / f"{name}.png"), label_hw.astype(np.uint8))
    entries = {
        "channel_names": {str(i): "grey" for i in range(job.channels)},
        "labels": {"background": 0, **{f"class {c}": i + 1 for i, c in enumerate(job.classes)}},
        "numTraining": len(ids),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(entries))


def _fit(job: Job, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    random.seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002 - its augmentation draws from the global generator
    torch.manual_seed(job.seed)
    os.environ.update(nnUNet_n_proc_DA="0")  # augments here; only its plans need processes
    trainer = nnUNetTrainer(plans, "2d", 0, dataset, torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    n_steps = 0
    while (share := job.share()) < 1:
        trainer.lr_scheduler.step(share * trainer.num_epochs)
        trainer.train_step(next(trainer.dataloader_train))
        n_steps += 1
    print(f"{n_steps} steps of {BATCH_SIZE}")
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))


def load(job: Job) -> Predict:
    """Return the model, the mean over mirrored images, as nnU-Net predicts by default."""
    results = _set_folders(job)["nnUNet_results"]
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folder = results / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")

    def predict(image_hwc: Image) -> Maps:
        planes = image_hwc[..., :1] if job.channels == 1 else image_hwc[..., ::-1]
        planes_chw = planes.transpose(2, 0, 1)[:, None].astype(np.float32)  # (channels, 1, H, W)
        facts = {"spacing": (999, 1, 1)}  # as its reader of PNG has it
        _, maps = predictor.predict_single_npy_array(planes_chw, facts, None, None, True)
        return np.asarray(maps[1:, 0], dtype=np.float32)

    return predict


if __name__ == "__main__":
    run("nnunetv2", train, load)
