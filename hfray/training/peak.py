"""How many floating-point operations a device can do in a second: the rate that utilisation is measured against. Knows
published figures, and how to measure what has none; not what is computed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from hfray.training.memory import Precision

_TERA = 1e12
_FLOPS: dict[str, dict[str, float]] = {
    # Tensor cores, dense (half of what is said "with sparsity"), sums in fp32, at the boost clock: from NVIDIA's data
    # sheets; for GeForce and RTX A6000 from the white papers of GA102 and of Ada, appendix A.
    "b200": {"bf16": 2250, "fp16": 2250, "tf32": 1125},
    "h200 nvl": {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5},
    "h200": {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7},
    "gh200": {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7},
    "h100 nvl": {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5},
    "h100 pcie": {"bf16": 756, "fp16": 756, "tf32": 378},
    "h100": {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7},
    "a100": {"bf16": 312, "fp16": 312, "tf32": 156},
    "a30": {"bf16": 165, "fp16": 165, "tf32": 82},
    "a40": {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8},
    "a10": {"bf16": 125, "fp16": 125, "tf32": 62.5},
    "a6000": {"bf16": 154.8, "fp16": 154.8, "tf32": 77.4},
    "l4": {"bf16": 121, "fp16": 121, "tf32": 60},
    "l40": {"bf16": 181.05, "fp16": 181.05, "tf32": 90.5},
    "l40s": {"bf16": 362.05, "fp16": 362.05, "tf32": 183},
    "t4": {"fp16": 65},
    "v100 pcie": {"fp16": 112},
    "v100": {"fp16": 125},
    "3090": {"bf16": 71, "fp16": 71, "tf32": 35.6},
    "4090": {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6},
}
_BESIDE = re.compile(r"nvidia|tesla|geforce|rtx|pcie|sxm\d?|hbm\d?e?|\d+gb")
"""What a name may hold beside the chip's own. Anything else (Laptop, Max-Q, MIG) makes it another, slower one."""

_SIDES = (256, 512, 1024, 2048, 4096, 8192)
"""Of the matrices that are multiplied. A large GPU has its full rate at the largest only; on a CPU that others use as
well short products find a moment without them."""
_PROBE_S, _LONGEST_S = 0.1, 0.1
"""For each side; and the longest product that is tried."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations per second of one device, and where the figure is from."""

    flops: float
    source: Literal["published", "measured"]


def peak_of(device: Any, precision: Precision) -> Peak:
    """Of a torch device (or its name) at what a worker computes in: published where it is known, or measured here and
    now, with this process's threads. fp32 is TF32 on a GPU that was told so."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        tf32 = precision == "fp32" and torch.backends.cuda.matmul.fp32_precision == "tf32"
        known = published_flops(torch.cuda.get_device_name(device), "tf32" if tf32 else precision)
        if known is not None:
            return Peak(known, "published")
    return Peak(measured_flops(device, precision), "measured")


def published_flops(name: str, precision: Precision | Literal["tf32"]) -> float | None:
    """Of a GPU by the name that the driver gives it: "NVIDIA A100-SXM4-80GB". None: not in the table."""
    words = set(re.split(r"[^a-z0-9]+", name.lower())) - {""}
    for chip, rates in _FLOPS.items():
        own = set(chip.split())
        if own <= words and all(_BESIDE.fullmatch(word) for word in words - own):
            rate = rates.get(precision)
            return None if rate is None else rate * _TERA
    return None


def measured_flops(device: Any, precision: Precision) -> float:
    """The best of some products of square matrices, 2 * side ** 3 operations each; takes less than a second on an idle
    machine. Where other processes use the cores, threads wait for each other: one of them alone may be faster then."""
    import torch

    device = torch.device(device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    best, threads = _best_of_sides(device, dtype), torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return best
    torch.set_num_threads(1)
    try:
        return max(best, _best_of_sides(device, dtype))
    finally:
        torch.set_num_threads(threads)


def _best_of_sides(device: Any, dtype: Any) -> float:
    best = 0.0
    for side in _SIDES:
        if best and 2 * side**3 / best > _LONGEST_S:
            break
        best = max(best, _best_flops(device, dtype, side))
    return best


def _best_flops(device: Any, dtype: Any, side: int) -> float:
    """Operations per second in the fastest of the products that fit into the time, of one at least."""
    import torch

    # Noise, since a GPU is faster on equal numbers; from a generator of its own, since the run's seed is not ours.
    noise = torch.Generator(device).manual_seed(0)
    one = torch.randn((side, side), dtype=dtype, device=device, generator=noise)
    product = torch.empty_like(one)

    def taken_s() -> float:
        started_s = time.perf_counter()
        torch.matmul(one, one, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started_s

    taken_s()  # the first one sets the libraries up
    ends_s, best_s = time.perf_counter() + _PROBE_S, taken_s()
    while time.perf_counter() < ends_s:
        best_s = min(best_s, taken_s())
    return 2 * float(side) ** 3 / best_s
