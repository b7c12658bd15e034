"""A GPU that is there and cannot be used is not passed over in silence."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from steelseg.core import device


class Machine:
    """A machine of this test: what there is of a GPU, and what torch makes of it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        driver = str(folder / "driver")
        patch.setattr(device, "DRIVERS", (driver,))
        patch.setattr(device, "NVIDIA_DRIVERS", (driver,))
        patch.setattr(device, "PCI_DEVICES", folder / "pci")

    def plug_in(self, vendor: str, kind: str) -> None:
        """Put a device into a slot."""
        folder = self.folder / "pci" / f"{vendor}-{kind}"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")

    def load_driver(self, capability: tuple[int, int] | None, said: str = "") -> None:
        """Of a GPU that torch can see with this capability, or not at all."""
        (self.folder / "driver").touch()

        def is_available() -> bool:
            if said:
                warnings.warn(said, stacklevel=1)
            return capability is not None

        self.patch.setattr(torch.cuda, "is_available", is_available)
        self.patch.setattr(torch.cuda, "device_count", lambda: 1)
        self.patch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_120"])
        self.patch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        self.patch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
        self.patch.setattr(torch.version, "cuda", "13.0")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One without anything, to plug a GPU into."""
    device.has_gpu.cache_clear()
    yield Machine(tmp_path, monkeypatch)
    device.has_gpu.cache_clear()


def test_a_gpu_that_works_needs_no_words(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does none at all, or one that draws the screen."""
    machine.plug_in("0x8086", "0x030000")
    machine.plug_in("0x10de", "0x040300")  # NVIDIA's sound
    assert not device.has_gpu()
    assert device.gpus() is None
    device.has_gpu.cache_clear()
    machine.load_driver((9, 0))
    assert device.has_gpu()
    assert capsys.readouterr() == ("", "")


def test_a_gpu_without_a_driver_is_warned_of_once(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that was started without it."""
    machine.plug_in("0x10de", "0x030200")
    assert not device.has_gpu()
    assert not device.has_gpu()
    said = capsys.readouterr().err
    assert said.count("WARNING: this machine has an NVIDIA GPU that CANNOT BE USED") == 1
    assert "its driver is not loaded" in said
    assert "--gpus all" in said


@pytest.mark.parametrize(
    ("capability", "said", "expected"),
    [
        (None, "The NVIDIA driver is too old\n(found 12040).", "driver is too old (found 12040)."),
        (None, "", "built for CUDA 13.0; no device was found."),
        ((6, 0), "", "compute capability 7.5 or higher, but Tesla P100 has 6.0."),
    ],
)
def test_what_torch_cannot_use_is_warned_of(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    capability: tuple[int, int] | None,
    said: str,
    expected: str,
) -> None:
    """An old driver, a GPU that was lost, an old GPU: by torch's own words where it has some."""
    machine.load_driver(capability, said)
    assert not device.has_gpu()
    assert expected in capsys.readouterr().err


def test_one_process_alone_warns(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none where GPUs were hidden on purpose."""
    machine.plug_in("0x10de", "0x030000")
    monkeypatch.setenv("RANK", "1")
    assert not device.has_gpu()
    monkeypatch.delenv("RANK")
    for hidden in ("", "-1"):
        device.has_gpu.cache_clear()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not device.has_gpu()
    assert capsys.readouterr() == ("", "")
