"""On which device this process computes.

Whoever owns a GPU computes on it: an actor or a rank that Ray gave one, and a process that does the
work of a run by itself. Everything else is on the CPU, unless a user names a device.
"""

import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.ownership import owns_gpus

DEVICE_VARIABLE = "BNCE_DEVICE"
"""Environment variable with the name of the device that commands and served models compute on."""


def worker_device() -> torch.device:
    """Return where a worker computes: on its GPU, if it has one.

    It is the first that this process sees: Ray shows an actor those it was given. Inside
    `without_gpu` it is the CPU.
    """
    has_gpu = owns_gpus() and torch.cuda.is_available()
    return torch.device("cuda" if has_gpu else "cpu")


def device_from_name(name: str | torch.device) -> torch.device:
    """Return the device that a user names.

    Args:
        name: ``cpu``, ``cuda``, or ``cuda:N`` where there are several.

    Raises: InputError: no device, one that is not there, or one without 64-bit numbers (``mps``),
        which energies and weights need.

    Examples:
        >>> device_from_name("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _refused(name, "try cpu") from None
    if device.type == "mps":
        raise _refused("mps, whose numbers have 32 bits", "use cpu: energies need 64")
    if device.type == "cuda":
        _require_gpu(device)
    elif device.type != "cpu":
        raise _refused(name, "try cpu")
    return device


def _require_gpu(device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise _refused(
            f"{device}, of which this process sees {count}",
            "use cpu, or look at nvidia-smi and CUDA_VISIBLE_DEVICES"
            if not count
            else f"use one of cuda:0 to cuda:{count - 1}",
        )


def _refused(got: object, remedy: str) -> InputError:
    return InputError("device", expected="cpu, or a GPU: cuda or cuda:N", got=got, remedy=remedy)
