"""Which processors and processes compute: asked without importing torch (seconds) if it can be."""

import os
from pathlib import Path

DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and WSL


def has_gpu() -> bool:
    """Whether torch can compute on a GPU; it is imported only where there is a GPU's driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def is_first_process() -> bool:
    """Whether this is the process that writes and logs, among those of a distributed training."""
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    )
