"""Whether there is a GPU, asked without importing torch (seconds) where there is none."""

from pathlib import Path

DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and WSL


def has_gpu() -> bool:
    """Whether torch can compute on a GPU; it is imported only where there is a GPU's driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()
