"""How much memory this process has used. Knows the system's counters and torch's; nothing of training."""

from __future__ import annotations

import resource
import sys


def peak_memory_bytes() -> int:
    """At most, since it began: device memory on a GPU, resident memory on a CPU."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
