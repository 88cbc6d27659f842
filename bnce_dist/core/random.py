"""Random streams addressed by name, so that no draw depends on who makes it or when."""

import hashlib

import numpy as np
import torch


def seed_from(*key: int | str) -> int:
    """Return a 63-bit seed that is a function of ``key`` alone.

    Args:
        key: Any number of integers and strings, e.g. ``(seed, "batch", step)``.

    Returns: A seed in ``[0, 2**63)``; different keys give independent streams.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    words = np.frombuffer(digest, dtype=np.uint32)
    state = np.random.SeedSequence(words.tolist()).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator whose stream is a function of ``key`` alone.

    Args:
        key: Any number of integers and strings, e.g. ``(seed, "batch", step)``.
        device: Where the draws are made.

    Examples:
        The stream depends on its name alone:

        >>> again = [torch.rand(1, generator=generator(0, "noise", step)) for step in (1, 1, 2)]
        >>> again[0] == again[1], again[0] == again[2]
        (tensor([True]), tensor([False]))
    """
    return torch.Generator(device=device).manual_seed(seed_from(*key))
