"""Gradients added up over real ranks, as DeepSpeed does by itself and in buckets."""

from __future__ import annotations

from typing import Any

from hfray.training.trainer import reduce_sparingly
from tests.training.state_jobs import build, digests, train

STEPS = 2
BUCKET = 500
"""Elements."""


def compare(rank: int, world_size: int, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each way: the weights after some steps, and the elements of the buckets that went over the wire."""
    found = []
    for sparingly in (False, True):
        case = {"stage": 0, "precision": plan["precision"], "method": "full", "zero": {"reduce_bucket_size": BUCKET}}
        engine = build(case, world_size)
        if sparingly:
            reduce_sparingly(engine, world_size)
        sent: list[int] = []
        of_deepspeed = engine.allreduce_bucket

        def counted(bucket: Any, *rest: Any, of_deepspeed: Any = of_deepspeed, sent: Any = sent, **named: Any) -> Any:
            sent.append(sum(each.numel() for each in bucket))
            return of_deepspeed(bucket, *rest, **named)

        engine.allreduce_bucket = counted
        train(engine, 0, STEPS, rank, world_size)
        found.append(
            {"weights": digests(engine), "sent": sent, "largest": max(map(_numel, engine.module.parameters()))}
        )
    return found


def _numel(tensor: Any) -> int:
    return int(tensor.numel())
