"""JPEG on disk to RLE on disk, against the bare network: seconds for each image."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import Scale, data_set
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.data.annotations import build_unannotated
from steelseg.data.cache import Cache
from steelseg.data.image_table import ImageTable
from steelseg.data.inspection import inspect_folder
from steelseg.export import onnx
from steelseg.model import network
from steelseg.model.network import ModelConfig, Segmenter
from steelseg.predict.inference import open_onnx
from steelseg.predict.parts import predict_parts
from steelseg.predict.postprocess import ClassRule

N_IMAGES = 8
RULE = ClassRule(threshold=0.5, min_component_area=600)


def rows(scale: Scale) -> Iterator[Row]:
    """Unet with resnet18, batch 1, float32; ours runs in ONNX Runtime, as `auto` does on a CPU."""
    with data_set(scale) as data, tempfile.TemporaryDirectory() as temporary:
        folder = data.folder / "train_images"
        inspection = inspect_folder(folder, skip_bad=False)
        table = build_unannotated(inspection, data.cache.size_hw, folder)
        table = ImageTable(table.table.slice(0, N_IMAGES), table.size_hw, table.classes)
        images = [data.cache.image(row)[None, None] for row in range(N_IMAGES)]
        segmenter = untrained(data.cache, dict(scale.arch_options))
        onnx.export(segmenter, Path(temporary) / "model.onnx")
        run = open_onnx(Path(temporary) / "model.onnx")
        many = open_onnx(Path(temporary) / "model.onnx", many=True)
        rules = dict.fromkeys(data.cache.classes, RULE)
        batches = [torch.from_numpy(image) for image in images]

        def ours() -> int:
            with tempfile.TemporaryDirectory() as work:
                parts = predict_parts(Path(work), table, folder, many, rules, N_IMAGES, 1)
                return sum(len(part) for part in parts)

        def bare_torch() -> None:
            with torch.inference_mode():
                for batch in batches:
                    segmenter(batch)

        assert ours() == N_IMAGES * len(rules)
        times = in_turns(
            {"ours": ours, "torch": bare_torch, "onnx": lambda: [run(image) for image in images]},
            scale.rounds,
        )
        mine, theirs, runtime = (seconds / N_IMAGES for seconds in times.values())
        what = "prediction, JPEG to RLE on disk"
        yield Row(what, mine, "the bare PyTorch forward", theirs, 1.35)
        yield Row(what, mine, "the bare ONNX Runtime", runtime, 0.93)


def untrained(cache: Cache, arch_options: dict[str, Any]) -> Segmenter:
    """Build a network of random weights whose answers are foreground in a few percent of pixels."""
    torch.manual_seed(0)
    config = ModelConfig(
        arch="Unet",
        encoder="resnet18",
        encoder_weights=None,
        in_channels=1,
        arch_options=arch_options,
    )
    segmenter = network.build(config, len(cache.classes), cache.mean, cache.std).eval()
    with torch.inference_mode():
        logits = segmenter(torch.from_numpy(np.stack([cache.image(0)])[:, None]))
        head = segmenter.network.get_submodule("segmentation_head.0")
        assert isinstance(head, torch.nn.Conv2d)
        assert head.bias is not None
        scale = 1 / logits.std()
        head.weight *= scale
        head.bias.copy_((head.bias - logits.mean()) * scale - 2)
    return segmenter
