"""What a processor could gain at linear layers: section `linear` of benchmarks/generate.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.generate_models import DTYPE, DTYPE_NAME, llama
from benchmarks.measure import ratio, table

ROUNDS = 15
PACKED_FOR = 8  # rows; the layout that oneDNN chooses for so many serves all others


def linear(shape: str, rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 256)) -> None:
    """All linear layers of a model, one after another, over so many rows: as torch computes them, with weights in
    oneDNN's own layout, and as weights times the transposed rows. The last two have no home in hfray yet."""
    weights = [each.weight for each in llama(shape, DTYPE).modules() if isinstance(each, torch.nn.Linear)]
    with torch.inference_mode():
        packed = [torch.ops.mkldnn._reorder_linear_weight(each, PACKED_FOR) for each in weights]
        found = []
        for count in rows:
            inputs = {each.shape[1]: torch.randn(count, each.shape[1], dtype=DTYPE) for each in weights}
            sides: dict[str, Callable[[], Any]] = {
                "plain": lambda: [torch.nn.functional.linear(inputs[each.shape[1]], each) for each in weights],  # noqa: B023
                "packed": lambda: [
                    torch.ops.mkldnn._linear_pointwise(inputs[each.shape[1]], one, None, "none", [], "")  # noqa: B023
                    for each, one in zip(weights, packed, strict=True)
                ],
                "turned": lambda: [torch.mm(each, inputs[each.shape[1]].t()) for each in weights],  # noqa: B023
            }
            seconds = _timed(sides)
            times = [f"{ratio(seconds['plain'], seconds[side]):.2f}x" for side in ("packed", "turned")]
            found.append([f"{count}", f"{1000 * statistics.median(seconds['plain']):.1f}", *times])
    table(
        f"Linear layers of {shape}, {DTYPE_NAME}",
        ["rows", "ms by torch", "packed weights are faster by", "turned products are faster by"],
        found,
    )


def _timed(sides: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each side, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(ROUNDS):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds
