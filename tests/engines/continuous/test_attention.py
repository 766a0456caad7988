"""Attention over blocks against attention written out, for rows that decode beside pieces of prompts."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from hfray.engines.continuous.attention import NAME, BlockTensors, Call, LayerShape, attending
from hfray.engines.continuous.scheduler import Slice
from hfray.engines.continuous.sequence import Sequence
from hfray.engines.continuous.step import Step
from hfray.types import GenerationParams

BLOCK, KV_HEADS, HEADS, KEY_DIM, VALUE_DIM, NUM_BLOCKS = 4, 2, 6, 8, 5, 64
SCALING = 0.3
CASES: list[dict[str, Any]] = [
    {}, {"window": 3}, {"window": 9}, {"softcap": 2.0}, {"sinks": True}, {"window": 5, "softcap": 2.0, "sinks": True},
]  # fmt: skip


class Text:
    """A sequence with keys, values and queries of all its positions; what is fed of it goes through the cache."""

    def __init__(self, length: int, blocks: list[int], dice: torch.Generator) -> None:
        nobody: Any = None
        self.sequence = Sequence(GenerationParams(), [0] * length, nobody, 0, b"", blocks=blocks)
        self.query = torch.randn(HEADS, length, KEY_DIM, generator=dice)
        self.key = torch.randn(KV_HEADS, length, KEY_DIM, generator=dice)
        self.value = torch.randn(KV_HEADS, length, VALUE_DIM, generator=dice)

    def expected(self, start: int, count: int, window: int | None, softcap: float | None, sinks: Any) -> Any:
        """[count, heads, value_dim], one position and head after the other."""
        found = torch.zeros(count, HEADS, VALUE_DIM)
        for row in range(count):
            end = start + row + 1
            first = 0 if window is None else max(0, end - window)
            for head in range(HEADS):
                kv = head // (HEADS // KV_HEADS)
                scores = self.key[kv, first:end] @ self.query[head, end - 1] * SCALING
                if softcap is not None:
                    scores = (scores / softcap).tanh() * softcap
                values = self.value[kv, first:end]
                if sinks is not None:  # one more place, whose value is zero
                    scores = torch.cat([scores, sinks[head : head + 1]])
                    values = torch.cat([values, torch.zeros(1, VALUE_DIM)])
                found[row, head] = scores.softmax(0) @ values
        return found


def fed(tensors: BlockTensors, texts: list[Text], parts: list[tuple[int, int, int]], case: dict[str, Any]) -> Any:
    """A step of (text, start, count), those of one token first."""
    step = Step([Slice(texts[number].sequence, start, count) for number, start, count in parts], BLOCK, "cpu")

    def rows(name: str) -> Any:
        return torch.cat([getattr(texts[number], name)[:, at : at + count] for number, at, count in parts], dim=1)

    window, softcap, sinks = case.get("window"), case.get("softcap"), case["sinks"]
    return tensors.attend(step, Call(0, rows("query"), rows("key"), rows("value"), SCALING, window, softcap, sinks))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_blocks_give_what_whole_sequences_give(case: dict[str, Any]) -> None:
    dice = torch.Generator().manual_seed(0)
    case = case | {"sinks": torch.randn(HEADS, generator=dice) if case.get("sinks") else None}
    shape = LayerShape(KV_HEADS, KEY_DIM, VALUE_DIM, torch.float32, case.get("window"))
    tensors = BlockTensors({0: shape}, NUM_BLOCKS, BLOCK, "cpu")
    # In order, in any order, and far apart.
    texts = [
        Text(9, [5, 3, 4], dice),
        Text(17, [20, 21, 22, 23, 24], dice),
        Text(1, [63], dice),
        Text(14, [40, 6, 10, 41], dice),
    ]
    wanted = (case.get("window"), case.get("softcap"), case["sinks"])
    prompts = [(0, 0, 8), (1, 0, 5), (3, 0, 6)]
    found = fed(tensors, texts, prompts, case)
    expected = torch.cat([texts[number].expected(start, count, *wanted) for number, start, count in prompts])
    torch.testing.assert_close(found, expected)
    # Two decode, one of them its very first token, while two prompts go on.
    mixed = [(0, 8, 1), (2, 0, 1), (1, 5, 12), (3, 6, 8)]
    found = fed(tensors, texts, mixed, case)
    expected = torch.cat([texts[number].expected(start, count, *wanted) for number, start, count in mixed])
    torch.testing.assert_close(found, expected)


def test_what_others_left_in_a_block_is_wiped() -> None:
    tensors = BlockTensors({0: LayerShape(KV_HEADS, KEY_DIM, VALUE_DIM, torch.float32, None)}, 2, BLOCK, "cpu")
    dice = torch.Generator().manual_seed(0)
    text = Text(2, [1], dice)
    spoilt = Text(4, [1], dice)
    spoilt.key[:] = spoilt.value[:] = float("nan")
    fed(tensors, [spoilt], [(0, 0, 4)], {"sinks": None})
    tensors.clear(torch.tensor([1]))
    fed(tensors, [text], [(0, 0, 1)], {"sinks": None})
    found = fed(tensors, [text], [(0, 1, 1)], {"sinks": None})
    torch.testing.assert_close(found, text.expected(1, 1, None, None, None))


def test_the_bytes_of_a_position() -> None:
    assert LayerShape(2, 8, 5, torch.bfloat16, None).bytes_per_token == 2 * (8 + 5) * 2


def test_only_the_thread_of_a_step_attends() -> None:
    attention = AttentionInterface()[NAME]
    module: Any = type("Module", (), {"layer_idx": 0})()
    states = [torch.zeros(1, 1, 1, 2)] * 3
    problems: list[str] = []

    def elsewhere() -> None:
        try:
            attention(module, *states, None)
        except RuntimeError as error:
            problems.append(str(error))

    with attending(lambda call: call.value.transpose(0, 1)):
        attended, weights = attention(module, *states, None)
        with pytest.raises(NotImplementedError, match="position bias"):
            attention(module, *states, None, position_bias=states[0])
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    assert (attended.shape, weights) == ((1, 1, 1, 2), None)
    elsewhere()
    assert len(problems) == 2
    assert "only the engine's thread" in problems[0]
