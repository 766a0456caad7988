"""Attention of packed rows over a block-wise cache, as an attention function that Transformers' models call. Knows
tensors; not sequences.

Rows of one token: each block of keys meets its row's query in one batched product over all blocks at once; the partial
results join afterwards (flash-decoding: Dao et al. 2023). Blocks that lie together in the cache are
read where they are, without a copy. Pieces of several tokens go one by one through torch's own attention.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from hfray.engines.continuous.step import Decodes, Piece, Step

NAME = "hfray_blocks"
_current = threading.local()


@dataclass(frozen=True, slots=True)
class Call:
    """One layer's attention over the rows of a step."""

    layer: int
    query: Any
    """[num_heads, rows, key_dim]; key and value [num_kv_heads, rows, key_dim | value_dim]."""
    key: Any
    value: Any
    scaling: float
    window: int | None
    softcap: float | None
    sinks: Any | None
    """[num_heads]: a score that takes part in the softmax and has no value."""


class Attend(Protocol):
    """-> [rows, num_heads, value_dim]."""

    def __call__(self, call: Call) -> Any: ...


@contextmanager
def attending(attend: Attend) -> Iterator[None]:
    """Inside, models switched to `NAME` attend through `attend`, in this thread."""
    _current.attend = attend
    try:
        yield
    finally:
        _current.attend = None


def _attention_function(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    position_bias: Any = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    attend = getattr(_current, "attend", None)
    if attend is None:
        raise RuntimeError("this model belongs to a continuous engine: only the engine's thread can call it")
    if position_bias is not None:
        raise NotImplementedError("attention with a position bias")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = Call(module.layer_idx, query[0], key[0], value[0], scaling, sliding_window, softcap, s_aux)
    return attend(call)[None], None


# No mask function of this name exists, so models build no mask: what a row sees is in the step.
AttentionInterface.register(NAME, _attention_function)


@dataclass(frozen=True, slots=True)
class LayerShape:
    num_kv_heads: int
    key_dim: int
    value_dim: int
    dtype: Any
    window: int | None

    @property
    def bytes_per_token(self) -> int:
        return int(self.num_kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize)


class BlockTensors:
    """Keys and values of all layers: [num_blocks, num_kv_heads, block_tokens, dim] each."""

    def __init__(self, layers: dict[int, LayerShape], num_blocks: int, block_tokens: int, device: Any) -> None:
        # Zeros, not garbage: a position that nobody sees still enters products, with weight 0, and 0 * NaN is NaN.
        def zeros(layer: LayerShape, dim: int) -> Any:
            shape = (num_blocks, layer.num_kv_heads, block_tokens, dim)
            return torch.zeros(shape, dtype=layer.dtype, device=device)

        self._tensors = {
            number: (zeros(layer, layer.key_dim), zeros(layer, layer.value_dim)) for number, layer in layers.items()
        }

    def clear(self, blocks: Any) -> None:
        """Wipes what earlier users left in blocks, int64 [n]: it may not be finite, see above."""
        for pair in self._tensors.values():
            for tensor in pair:
                tensor.index_fill_(0, blocks, 0)

    def attend(self, step: Step, call: Call) -> Any:
        """Stores the rows' keys and values, then attends."""
        keys, values = self._tensors[call.layer]
        slots = step.slots(keys.shape[1])
        for tensor, states in ((keys, call.key), (values, call.value)):
            dim = states.shape[-1]
            tensor.view(-1, dim).index_copy_(0, slots, states.transpose(0, 1).reshape(-1, dim))
        found = []
        if step.num_decodes:
            found.append(_attend_decodes(call, step.decodes(call.window), keys, values))
        found += [_attend_piece(call, piece, keys, values) for piece in step.pieces]
        return found[0] if len(found) == 1 else torch.cat(found)


def _attend_decodes(call: Call, decodes: Decodes, keys: Any, values: Any) -> Any:
    num_rows, num_heads, num_kv_heads = decodes.num_rows, call.query.shape[0], keys.shape[1]
    grouped = (num_rows, num_kv_heads, num_heads // num_kv_heads)
    query = call.query[:, :num_rows].transpose(0, 1).reshape(*grouped, -1)
    maxima = query.new_full((num_rows * decodes.width, *grouped[1:]), float("-inf"), dtype=torch.float32)
    scores = []
    for part in decodes.parts:
        partial = torch.matmul(query.index_select(0, part.row), _read(keys, part.blocks).transpose(2, 3))
        partial = partial.float().mul_(call.scaling)
        if call.softcap is not None:
            partial = partial.div_(call.softcap).tanh_().mul_(call.softcap)
        partial = partial.add_(part.bias)
        maxima[part.place] = partial.amax(-1)
        scores.append(partial)
    most = maxima.view(num_rows, decodes.width, *grouped[1:]).amax(1)
    total = query.new_zeros(grouped, dtype=torch.float32)
    if call.sinks is not None:
        sinks = call.sinks.float().view(1, *grouped[1:])
        most = torch.maximum(most, sinks)
        total += (sinks - most).exp()
    output = query.new_zeros((*grouped, values.shape[-1]), dtype=torch.float32)
    for part, partial in zip(decodes.parts, scores, strict=True):
        weights = partial.sub_(most.index_select(0, part.row)[..., None]).exp_()
        total.index_add_(0, part.row, weights.sum(-1))
        output.index_add_(0, part.row, torch.matmul(weights.to(values.dtype), _read(values, part.blocks)).float())
    return output.div_(total[..., None]).flatten(1, 2).to(call.value.dtype)


def _read(tensor: Any, blocks: Any) -> Any:
    """Blocks of a cache: neighbours where they are, others as a copy."""
    # On a CPU a list of indexes takes several times as long.
    return tensor[blocks] if isinstance(blocks, slice) else tensor.index_select(0, blocks)


def _attend_piece(call: Call, piece: Piece, keys: Any, values: Any) -> Any:
    rows = slice(piece.row, piece.row + piece.count)
    query = call.query[:, rows]
    end = piece.start + piece.count
    whole = call.window is None or end <= call.window
    if piece.start == 0 and whole and call.softcap is None and call.sinks is None:
        key, value = (_repeat(each[:, rows], query.shape[0]) for each in (call.key, call.value))
        attended = torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True, scale=call.scaling
        )[0]
        return attended.transpose(0, 1)
    size = keys.shape[2]
    first = 0 if call.window is None else max(0, piece.start + 1 - call.window) // size
    blocks = piece.blocks[first : -(-end // size)]
    key, value = (
        _repeat(each.index_select(0, blocks).transpose(0, 1).flatten(1, 2)[:, : end - first * size], query.shape[0])
        for each in (keys, values)
    )
    position = torch.arange(piece.start, end, device=query.device)[:, None]
    other = torch.arange(first * size, end, device=query.device)[None, :]
    seen = other <= position
    if call.window is not None:
        seen &= other > position - call.window
    if call.softcap is None and call.sinks is None:
        attended = torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], value[None], attn_mask=seen[None, None], scale=call.scaling
        )[0]
        return attended.transpose(0, 1)
    scores = torch.matmul(query, key.transpose(1, 2)).float() * call.scaling
    if call.softcap is not None:
        scores = (scores / call.softcap).tanh() * call.softcap
    scores = scores.masked_fill(~seen, float("-inf"))
    total = scores.logsumexp(-1, keepdim=True)
    if call.sinks is not None:
        total = torch.logaddexp(total, call.sinks.float()[:, None, None])
    return torch.matmul((scores - total).exp().to(value.dtype), value).transpose(0, 1)


def _repeat(states: Any, num_heads: int) -> Any:
    """Key or value heads [kv_heads, tokens, dim] repeated to the number of query heads."""
    times = num_heads // states.shape[0]
    return states if times == 1 else states.repeat_interleave(times, dim=0)
