"""What a training process must find in its environment before torch, DeepSpeed and Transformers look. Knows environment
variables; imports none of the three."""

from __future__ import annotations

import os


def prepare(*, on_gpu: bool, local_world_size: int) -> None:
    """To be called first of all in a worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["LOCAL_SIZE"] = str(local_world_size)  # DeepSpeed would count a CPU's memory nodes
    if not on_gpu:
        # Not ACCELERATE_USE_CPU, with which Accelerate leaves DeepSpeed out.
        os.environ["DS_ACCELERATOR"] = "cpu"
