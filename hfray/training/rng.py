"""The random generators of one rank: Python's, numpy's, torch's, and those of its GPU. Knows generators; not files.

Dropout draws from them, so a run that was resumed goes on as if nothing had happened only with the same states.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np


def rng_state() -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name (uint8 or int64, [..]) and plain JSON beside them."""
    import torch

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    facts = {
        "python": [version, gauss],
        "numpy": [str(name), int(position), int(has_gauss), float(cached)],
    }
    return tensors, facts


def set_rng_state(tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """What `rng_state` gave. A GPU's state is left alone where there is none now, and the other way round."""
    import torch

    version, gauss = facts["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    name, position, has_gauss, cached = facts["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def seed_rank(seed: int, rank: int, position: int) -> None:
    """Starts the generators of a rank that has no state yet. position: samples that the run has seen."""
    import torch

    digest = hashlib.sha256(f"{seed} {rank} {position}".encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, np.uint32))
    torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
