"""Which devices and processes compute; torch, slow to import, is imported only if needed."""

import os
import re
import shutil
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and WSL
NVIDIA_DRIVERS = ("/proc/driver/nvidia", "/usr/lib/wsl/lib/libcuda.so.1")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - nothing is written there
PCI_DEVICES, NVIDIA, DISPLAY = Path("/sys/bus/pci/devices"), "0x10de", "0x03"


class Gpus(NamedTuple):
    """The GPUs of this machine."""

    number: int
    memory: int
    """bytes, of the GPU that has least"""
    bf16: bool
    """whether they support bfloat16, as NVIDIA's do since Ampere"""


@cache
def has_gpu() -> bool:
    """Whether torch can compute on a GPU; nothing else decides that.

    Warns once if an NVIDIA GPU is present but cannot be used, since everything would silently run
    on the CPU. `CUDA_VISIBLE_DEVICES=` hides GPUs without a warning.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return False
    has_driver = any(Path(driver).exists() for driver in DRIVERS)
    fault = _fault_of_torch() if has_driver else "its driver is not loaded"
    if fault and is_first_process() and _is_nvidias():
        warning = (
            "\nWARNING: this machine has an NVIDIA GPU that CANNOT BE USED; everything runs on the "
            f"CPU:\n  {fault}.\n  A container needs `--gpus all`. To run on the CPU without this "
            "warning, set CUDA_VISIBLE_DEVICES= (to nothing).\n"
        )
        print(warning, file=sys.stderr, flush=True)  # noqa: T201 - for the user
    return not fault


def gpus() -> Gpus | None:
    """Return the GPUs, or None if there is none to compute on."""
    if not has_gpu():
        return None
    import torch

    memory = [torch.cuda.get_device_properties(i).total_memory for i in _indices()]
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Gpus(len(memory), min(memory), bf16)


def n_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_memory() -> int:
    """Return the free bytes of shared memory; a container has 64 MB by default."""
    return shutil.disk_usage(SHARED_MEMORY).free if Path(SHARED_MEMORY).is_dir() else sys.maxsize


def is_first_process() -> bool:
    """Whether this is the process of a distributed training that writes and logs."""
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    )


def _fault_of_torch() -> str:
    """Return why torch cannot compute on a GPU; empty if it can."""
    import torch

    build = f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda or '(none)'}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            said = " ".join(str(caught[-1].message).split()) if caught else "no device was found"
            return f"{build}; {said.rstrip('.')}"
    if torch.version.cuda is None:  # AMD, whose architectures have no order
        return ""
    oldest = min(int(re.sub(r"\D", "", arch)) for arch in torch.cuda.get_arch_list())
    for index in _indices():
        major, minor = torch.cuda.get_device_capability(index)
        if 10 * major + minor < oldest:
            name = torch.cuda.get_device_name(index)
            return (
                f"{build} and compute capability {oldest / 10} or higher, but {name} has "
                f"{major}.{minor}"
            )
    return ""


def _indices() -> range:
    import torch

    return range(torch.cuda.device_count())


def _is_nvidias() -> bool:
    """Whether an NVIDIA driver or GPU is present, even if hidden from a container."""
    if any(Path(driver).exists() for driver in NVIDIA_DRIVERS):
        return True
    found = [device for device in PCI_DEVICES.glob("*") if _reads(device / "vendor") == NVIDIA]
    return any(_reads(device / "class").startswith(DISPLAY) for device in found)


def _reads(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
