"""One padded batch through a model, and back to one output per item. Knows tensors; not queues, not text.

The items of a batch are of one kind and one reduce class. Sequences are padded on the right; a batch without
padding goes in without an attention mask, which lets attention take its fast path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hfray.engines.generate import generate_batch
from hfray.models.load import LoadedModel
from hfray.types import Array, Features, Item, Logits, MaskScores, NextTokens, Output, Pool, Spans, TokenLogits

PATCH_PIXELS = 256  # a 16 x 16 patch is about one position of a vision transformer
CHUNK_POSITIONS = 1024  # whose scores of a whole vocabulary are in float32 at a time


def cost_tokens(item: Item) -> int:
    """Positions that an item occupies alone."""
    pixels = item.inputs.get("pixel_values")
    if pixels is not None:
        return max(1, int(pixels.shape[-1] * pixels.shape[-2]) // PATCH_PIXELS)
    return max(1, item.num_tokens)


def run_batch(loaded: LoadedModel, items: Sequence[Item], on_step: Callable[[], None] = lambda: None) -> list[Output]:
    """One output per item, in order, as numpy float32/int64 on the host. on_step: called after each forward pass of a
    batch that takes many."""
    if items[0].kind in ("seq2seq", "causal"):
        return generate_batch(loaded.model, items, loaded.device, on_step)
    batch, lengths = _collate(loaded, items)
    model = loaded.model
    reduce = items[0].reduce
    if isinstance(reduce, Features):
        return _features(model, items[0].kind, batch)
    outputs = model(**batch)
    return _REDUCTIONS[type(reduce)](loaded, outputs, lengths, items)


def _collate(loaded: LoadedModel, items: Sequence[Item]) -> tuple[dict[str, Any], list[int]]:
    if items[0].kind == "image":
        pixels = np.stack([item.inputs["pixel_values"] for item in items])
        return {"pixel_values": torch.from_numpy(pixels).to(loaded.device, loaded.model.dtype)}, [1] * len(items)
    lengths = [item.num_tokens for item in items]
    longest = max(lengths)
    batch: dict[str, Any] = {}
    for name in items[0].inputs:
        padded = np.full((len(items), longest), loaded.pad_token_id if name == "input_ids" else 0, dtype=np.int64)
        for row, item in enumerate(items):
            padded[row, : lengths[row]] = item.inputs[name]
        batch[name] = torch.from_numpy(padded).to(loaded.device, non_blocking=True)
    if min(lengths) < longest:
        mask = np.arange(longest)[None, :] < np.array(lengths)[:, None]
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(loaded.device, non_blocking=True)
    return batch, lengths


def _to_numpy(tensor: Any) -> Any:
    return tensor.float().cpu().numpy()


def _features(model: Any, kind: str, batch: dict[str, Any]) -> list[Output]:
    tower = model.get_image_features if kind == "image" else model.get_text_features
    features = tower(**batch)
    features = getattr(features, "pooler_output", features)
    features = torch.nn.functional.normalize(features.float(), dim=-1)
    return [{"embedding": row} for row in _to_numpy(features)]


def _logits(_: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    return [{"logits": row} for row in _to_numpy(outputs.logits)]


def _token_logits(_: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    logits = _to_numpy(outputs.logits)
    return [{"logits": logits[row, :length]} for row, length in enumerate(lengths)]


def _spans(_: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    start, end = _to_numpy(outputs.start_logits), _to_numpy(outputs.end_logits)
    return [{"start": start[row, :length], "end": end[row, :length]} for row, length in enumerate(lengths)]


def _mask_scores(_: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    results: list[Output] = []
    for row, item in enumerate(items):
        reduce = item.reduce
        if not isinstance(reduce, MaskScores):
            raise TypeError("a batch must hold one reduce class")
        scores = outputs.logits[row, list(reduce.positions)].float().softmax(dim=-1)
        if reduce.targets:
            targets = torch.tensor(reduce.targets, device=scores.device)
            best = scores[:, targets].topk(min(reduce.top_k, len(targets)), dim=-1)
            ids = targets[best.indices]
        else:
            best = scores.topk(min(reduce.top_k, scores.shape[-1]), dim=-1)
            ids = best.indices
        results.append({"ids": ids.cpu().numpy(), "scores": _to_numpy(best.values)})
    return results


def _next_tokens(_: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    results: list[Output] = []
    for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
        reduce = item.reduce
        if not isinstance(reduce, NextTokens):
            raise TypeError("a batch must hold one reduce class")
        parts = [
            _logprobs(outputs.logits[row, start - 1 : stop - 1], item.inputs["input_ids"][start:stop])
            for start in range(reduce.first, length, CHUNK_POSITIONS)
            for stop in (min(start + CHUNK_POSITIONS, length),)
        ]
        results.append({"logprobs": np.concatenate([np.zeros(0, np.float32), *parts])})
    return results


def _logprobs(logits: torch.Tensor, ids: Array) -> Array:
    """logits: [num_tokens, vocabulary]; ids: [num_tokens]."""
    wanted = torch.as_tensor(ids, device=logits.device)[:, None]
    found: Array = _to_numpy(logits.float().log_softmax(dim=-1).gather(-1, wanted)[:, 0])
    return found


def _pool(loaded: LoadedModel, outputs: Any, lengths: list[int], items: Sequence[Item]) -> list[Output]:
    hidden = outputs.last_hidden_state
    reduce = items[0].reduce
    if not isinstance(reduce, Pool):
        raise TypeError("a batch must hold one reduce class")
    if reduce.mode == "none":
        tokens = loaded.dense(hidden) if loaded.dense is not None else hidden
        if reduce.normalize:
            tokens = torch.nn.functional.normalize(tokens.float(), dim=-1)
        states = _to_numpy(tokens)
        return [{"embedding": states[row, :length]} for row, length in enumerate(lengths)]
    pooled = _POOLING[reduce.mode](hidden, lengths, items)
    if loaded.dense is not None:
        pooled = loaded.dense(pooled.to(hidden.dtype))
    pooled = pooled.float()
    if reduce.normalize:
        pooled = torch.nn.functional.normalize(pooled, dim=-1)
    return [{"embedding": row} for row in _to_numpy(pooled)]


def item_skip(item: Item) -> int:
    """Leading tokens that pooling leaves out."""
    return item.reduce.skip if isinstance(item.reduce, Pool) else 0


def _weights(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    """[batch, tokens] of 0 and 1: which positions pooling sees."""
    position = torch.arange(hidden.shape[1], device=hidden.device)[None, :]
    ends = torch.tensor(lengths, device=hidden.device)[:, None]
    starts = torch.tensor([item_skip(item) for item in items], device=hidden.device)[:, None]
    return (position < ends) & (position >= starts)


def _mean(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    weights = _weights(hidden, lengths, items).to(hidden.dtype)
    # A batched product instead of a broadcast multiply: no second [batch, tokens, dim] tensor. Sums in float32.
    summed = torch.bmm(weights[:, None, :].float(), hidden.float())[:, 0]
    return summed / weights.float().sum(dim=1, keepdim=True).clamp(min=1)


def _mean_sqrt_len(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    count = _weights(hidden, lengths, items).float().sum(dim=1, keepdim=True).clamp(min=1)
    return _mean(hidden, lengths, items) * count.sqrt()


def _max(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    outside = ~_weights(hidden, lengths, items)
    return hidden.float().masked_fill(outside[..., None], float("-inf")).amax(dim=1)


def _cls(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    # As sentence-transformers: with a prompt left out, the first token that is not left out.
    rows = torch.arange(len(lengths), device=hidden.device)
    return hidden[rows, torch.tensor([item_skip(item) for item in items], device=hidden.device)]


def _last(hidden: Any, lengths: list[int], items: Sequence[Item]) -> Any:
    rows = torch.arange(len(lengths), device=hidden.device)
    return hidden[rows, torch.tensor(lengths, device=hidden.device) - 1]


_POOLING: dict[str, Callable[..., Any]] = {
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "max": _max,
    "cls": _cls,
    "last": _last,
}
_REDUCTIONS: dict[type, Callable[..., list[Output]]] = {
    Logits: _logits,
    TokenLogits: _token_logits,
    Spans: _spans,
    MaskScores: _mask_scores,
    NextTokens: _next_tokens,
    Pool: _pool,
}
