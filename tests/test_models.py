"""Models save and load exactly, and say what does not fit."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import maps_of, open_runtime, save_model

from steelseg.core import sealed
from steelseg.core.device import has_gpu
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.pixels import GREY, PixelFormat
from steelseg.export import onnx
from steelseg.model import network
from steelseg.model.card import ModelConfig, read_card
from steelseg.model.network import Segmenter
from steelseg.predict.inference import half_type, open_onnx, torch_network

ROOT = Path(__file__).parents[1]


def config(**changes: Any) -> ModelConfig:
    tiny = {
        "arch": "Unet",
        "encoder": "resnet18",
        "encoder_weights": None,
        "arch_options": {"decoder_channels": [16, 8, 8, 4, 4]},
    }
    return ModelConfig(**tiny | changes)


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rounding no scaled head makes larger, with its ONNX export."""
    folder = tmp_path_factory.mktemp("model")
    recipe = config(arch_options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]})
    torch.manual_seed(0)
    segmenter = network.build(recipe, 2, mean=[0.4], std=[0.2]).eval()
    save_model(folder, segmenter, recipe)
    onnx.export(segmenter, folder / "model.onnx")
    return folder


def images(n: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (n, height, width), dtype=np.uint8))


def test_a_saved_model_computes_the_same(tmp_path: Path) -> None:
    """Weights, normalisation and classes come back."""
    original = network.build(config(), 2, mean=[0.4], std=[0.2]).eval()
    save_model(tmp_path, original, config())
    loaded, card = network.load(tmp_path)
    x = torch.from_numpy(np.stack(images(2, 64, 96)))[:, None]
    assert card.classes == [1, 2]
    assert torch.equal(original(x), loaded(x))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 75), (1, 33)])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_onnx_equals_torch_at_any_size_and_batch(
    plain_model: Path, height: int, width: int, batch_size: int
) -> None:
    """Images are padded to what the encoder needs and the answer is cut back, in both runtimes."""
    items = images(5, height, width)
    answers = [
        maps_of(items, open_runtime(plain_model, name, batch_size)) for name in ("torch", "onnx")
    ]
    for ours, theirs in zip(*answers, strict=True):
        assert ours.shape == (2, height, width)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_grey_levels_reach_the_network_normalised() -> None:
    """(level / white - mean) / std, of each channel by its own; 65535 is the white of 16 bits."""
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    white = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    Segmenter(Spy(), GREY, [0.5], [0.25])(white)
    assert seen[0].shape == (1, 1, 32, 32)
    assert torch.all(seen[0] == 2.0)
    deep = PixelFormat(channels=3, depth=16, low=0, high=4095)
    whites = torch.full((1, 3, 32, 32), 65535).to(torch.uint16)
    Segmenter(Spy(), deep, [0.5, 0.0, 1.0], [0.25, 0.5, 1.0])(whites)
    assert seen[1][0, :, 5, 5].tolist() == [2.0, 2.0, 0.0]


def test_weights_of_another_network_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """The message names the first tensor that differs."""
    other = network.build(config(arch="FPN", arch_options={}), 2, [0.4], [0.2])
    with pytest.raises(BadInput, match="expected the weights of FPN, but"):
        network.load_weights(tiny_model / "model.safetensors", other.network, "FPN")
    tensors = load_file(tiny_model / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if "encoder" not in k}, tmp_path / "part.safetensors"
    )
    with pytest.raises(BadInput, match="encoder"):
        network.load_weights(
            tmp_path / "part.safetensors", network.load(tiny_model)[0].network, "Unet"
        )


@pytest.mark.parametrize("damage", ["flip", "truncate", "another model's card", "missing"])
def test_a_damaged_model_is_refused(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    """Weights are checked against the checksum on their card."""
    weights, card = tmp_path / "model.safetensors", tmp_path / "model.json"
    data = bytearray((tiny_model / "model.safetensors").read_bytes())
    facts = sealed.read_sealed_json(tiny_model / "model.json")
    match damage:
        case "flip":
            data[len(data) // 2] ^= 4
        case "truncate":
            data = data[:-10]
        case "another model's card":
            facts["weights_sha256"] = "0" * 64
    sealed.write_sealed_json(card, facts)
    if damage != "missing":
        weights.write_bytes(data)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        network.load(tmp_path)


def test_a_card_with_a_changed_number_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Another mean would be legal, and every prediction wrong in silence."""
    shutil.copytree(tiny_model, tmp_path / "model")
    card = tmp_path / "model/model.json"
    text = card.read_text()
    card.write_text(text.replace("0.4", "0.5", 1))
    assert card.read_text() != text
    with pytest.raises(BadInput, match=r"model\.json: is damaged"):
        network.load(tmp_path / "model")


def test_a_model_of_another_version_is_refused_with_a_way_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    """It may be a member or a champion, which no repetition of the pipeline makes anew."""
    facts = sealed.read_sealed_json(tiny_model / "model.json") | {"format": 1}
    sealed.write_sealed_json(tmp_path / "model.json", facts)
    with pytest.raises(
        BadInput, match=r"model\.json: expected .* 2, but got 1, .*; use that version"
    ):
        read_card(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "of other weights", "missing"])
def test_a_damaged_onnx_export_is_refused(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    """ONNX Runtime would load flipped weights as they are."""
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model/model.onnx"
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        case "truncate":
            path.write_bytes(data[:-10])
        case "of other weights":
            other = network.build(config(), 2, [0.4], [0.2])
            save_model(path.parent, other, config())
        case "missing":
            path.unlink()
    with pytest.raises(BadInput, match=r"model\.onnx: "):
        open_runtime(tmp_path / "model", "onnx")


def test_an_encoder_loads_from_a_local_file(tmp_path: Path) -> None:
    """`encoder_weights: path/to.safetensors` works without a network."""
    source = network.build(config(), 2, [0.4], [0.2])
    save_file(source.network.encoder.state_dict(), tmp_path / "encoder.safetensors")
    local = config(encoder_weights=str(tmp_path / "encoder.safetensors"))
    loaded = network.build(local, 2, [0.4], [0.2])
    for name, tensor in source.network.encoder.state_dict().items():
        assert torch.equal(loaded.network.encoder.state_dict()[name], tensor)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the reason, and the two ways out."""

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(network.smp, "create_model", offline)
    with pytest.raises(SteelsegError, match=r"cannot be downloaded \(cannot reach the hub\)\. Set"):
        network.build(config(encoder_weights="imagenet"), 2, [0.4], [0.2])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_weights_for_colours_are_folded_for_any_number_of_channels(
    channels: int, tmp_path: Path
) -> None:
    """The same grey on all of them answers as it would on the three colours."""
    path = tmp_path / "encoder.safetensors"
    colours, several = (PixelFormat(channels=n) for n in (3, channels))
    of_colours = network.build(config(), 2, [0.4] * 3, [0.2] * 3, colours).eval()
    save_file(of_colours.network.encoder.state_dict(), path)  # type: ignore[union-attr]
    local, halves = config(encoder_weights=str(path)), [0.5] * channels
    folded = network.build(local, 2, halves, halves, several).eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        expected = of_colours.network.encoder(grey.expand(-1, 3, -1, -1))  # type: ignore[operator]
        found = folded.network.encoder(grey.expand(-1, channels, -1, -1))  # type: ignore[operator]
    for ours, theirs in zip(found[1:], expected[1:], strict=True):  # the first is the image itself
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "Unett"}, "did you mean `Unet`"),
        ({"encoder": "resnet81"}, "did you mean `resnet18`"),
        ({"encoder": "tu-no-such-net"}, "cannot be built"),
        ({"arch_options": {"decoder_chanels": [1]}}, "decoder_chanels"),
        ({"encoder_weights": "imagenette"}, "imagenette"),
        ({"encoder_weights": "absent.safetensors"}, "absent"),
    ],
)
def test_unknown_names_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each with the nearest right one, or the library's reason."""
    with pytest.raises(BadInput, match=message):
        network.build(config(**changes), 2, [0.4], [0.2])


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_an_onnx_file_that_is_none_is_refused(
    tiny_model: Path, tmp_path: Path, content: bytes
) -> None:
    """An empty one means that the model was made for torch."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.onnx"):
        open_onnx(tmp_path, read_card(tiny_model))


def test_without_a_gpu_prediction_does_not_import_torch(tiny_model: Path) -> None:
    """`auto` finds that there is no GPU, and runs the network, without importing torch."""
    if has_gpu():
        pytest.skip("there is a GPU, for which torch is needed")
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "sys.path.insert(0, 'src'); import stages.predict\n"
        "from steelseg.predict.model import Model\n"
        "model = Model.open(sys.argv[1])\n"
        "assert len(model.predict(np.zeros((32, 32), np.uint8))) == 2\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_model)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("16-mixed", torch.float16),
        ("bf16-mixed", torch.bfloat16),
        ("32-true", None),
        (None, None),
    ],
)
def test_a_network_runs_in_the_type_that_it_was_trained_in(
    precision: str | None, dtype: torch.dtype | None
) -> None:
    """Another may overflow; a model that does not say takes 32 bits."""
    assert half_type({"precision": precision} if precision else {}) == dtype


def test_half_precision_answers_nearly_the_same() -> None:
    """Convolutions hold half weights, batch norm whole ones, and the answers are 32-bit again."""
    torch.manual_seed(0)
    segmenter = network.build(config(), 2, mean=[0.4], std=[0.2]).eval()
    image = np.stack(images(2, 64, 96))[:, None]
    expected = torch_network(copy.deepcopy(segmenter), torch.device("cpu"), None)(image)
    answer = torch_network(segmenter, torch.device("cpu"), torch.bfloat16)(image)
    kinds = {
        (type(module).__name__, parameter.dtype)
        for module in segmenter.modules()
        for parameter in module.parameters(recurse=False)
    }
    assert kinds == {("Conv2d", torch.bfloat16), ("BatchNorm2d", torch.float32)}
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=0.03)
    assert np.abs(answer - expected).max() > 0
