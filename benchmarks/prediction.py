"""JPEG on disk to RLE on disk, against the bare network: seconds per image."""

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
from steelseg.model.card import EXPORT, ModelConfig
from steelseg.model.network import Segmenter
from steelseg.predict.model import Model
from steelseg.predict.parts import predict_parts
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import Rules, write_rules

N_IMAGES = 8
RULE = ClassRule(threshold=0.5, min_component_area=600)


def rows(scale: Scale) -> Iterator[Row]:
    """Unet with resnet18, batch 1, float32; ours runs in ONNX Runtime, as `auto` does on a CPU."""
    with data_set(scale) as data, tempfile.TemporaryDirectory() as temporary:
        folder = data.folder / "train_images"
        inspection = inspect_folder(folder, skip_bad=False)
        table = build_unannotated(inspection)
        table = ImageTable(table.table.slice(0, N_IMAGES), table.class_infos)
        images = [data.cache.image(row)[None, None] for row in range(N_IMAGES)]
        segmenter = untrained(data.cache, dict(scale.arch_options))
        model = finish(segmenter, data.cache, scale, Path(temporary), {})
        onnx.export(segmenter, model.folder / EXPORT)
        run = model.runtime(many=False)
        batches = [torch.from_numpy(image) for image in images]

        def ours() -> int:
            with tempfile.TemporaryDirectory() as work:
                parts = predict_parts(Path(work), table, folder, model, N_IMAGES)
                return sum(len(part) for part in parts)

        def bare_torch() -> None:
            with torch.inference_mode():
                for batch in batches:
                    segmenter(batch)

        assert ours() == N_IMAGES * len(model.classes)
        times = in_turns(
            {"ours": ours, "torch": bare_torch, "onnx": lambda: [run(image) for image in images]},
            scale.rounds,
        )
        mine, theirs, runtime = (seconds / N_IMAGES for seconds in times.values())
        what = "prediction, JPEG to RLE on disk"
        yield Row(what, mine, "the bare PyTorch forward", theirs, 1.35)
        yield Row(what, mine, "the bare ONNX Runtime", runtime, 0.93)


def network_config(arch_options: dict[str, Any]) -> ModelConfig:
    """Describe the network that is measured."""
    return ModelConfig(
        arch="Unet",
        encoder="resnet18",
        encoder_weights=None,
        arch_options=arch_options,
    )


def finish(
    segmenter: Segmenter, cache: Cache, scale: Scale, folder: Path, training: dict[str, Any]
) -> Model:
    """Write a network as a model that was trained so, with rules, and open it."""
    config = network_config(dict(scale.arch_options))
    facts = {"classes": cache.classes, "size_hw": cache.typical_size_hw, "training": training}
    card = network.save_model(folder, segmenter, config, **facts)
    rules = Rules(dict.fromkeys(cache.classes, RULE), card.weights_sha256)
    write_rules(folder, rules)
    return Model.open(folder)


def untrained(cache: Cache, arch_options: dict[str, Any]) -> Segmenter:
    """Build a network of random weights whose answers are foreground in a few percent of pixels."""
    torch.manual_seed(0)
    config = network_config(arch_options)
    segmenter = network.build(
        config, len(cache.classes), cache.mean, cache.std, cache.pixels
    ).eval()
    with torch.inference_mode():
        logits = segmenter(torch.from_numpy(np.stack([cache.image(0)])[:, None]))
        head = segmenter.network.get_submodule("segmentation_head.0")
        assert isinstance(head, torch.nn.Conv2d)
        assert head.bias is not None
        scale = 1 / logits.std()
        head.weight *= scale
        head.bias.copy_((head.bias - logits.mean()) * scale - 2)
    return segmenter
