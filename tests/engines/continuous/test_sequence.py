"""A text being generated: why it ends, what it shares, what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hfray.engines.base import TokenScores
from hfray.engines.continuous.sequence import Sequence
from hfray.types import GenerationParams, Item, Reduce
from tests.engines.continuous.support import item_of

NOBODY: Any = None


def sequence_of(prompt: list[int], *, salt: str = "", adapter: str | None = None, **settings: Any) -> Sequence:
    item = item_of(prompt, salt=salt, **settings)
    return Sequence.of(Item(item.kind, item.inputs, item.reduce, item.generation, adapter, salt), NOBODY, 0)


def test_a_text_ends_at_a_stop_token_a_stop_string_or_its_length() -> None:
    assert sequence_of([5, 6], eos_token_ids=(1, 9)).append(9) == "stop"
    text = sequence_of([5, 6], max_new_tokens=2, eos_token_ids=())
    assert [text.append(9), text.append(8)] == [None, "length"]
    asked: list[list[int]] = []

    def stop(tokens: Any) -> bool:
        asked.append(list(tokens))
        return len(tokens) == 2

    text = sequence_of([5, 6], stop=stop, max_new_tokens=2)
    assert [text.append(7), text.append(8)] == [None, "stop"]  # not "length": the string was complete
    assert asked == [[7], [7, 8]]


def test_counts_of_prompt_and_what_is_to_be_fed() -> None:
    text = sequence_of([5, 6, 7])
    assert (text.num_prompt, text.num_left) == (3, 3)
    text.num_cached = 3
    text.append(8)
    assert (text.num_prompt, text.num_left, text.tokens) == (3, 1, [5, 6, 7, 8])


def test_blocks_are_shared_by_what_stands_before_them() -> None:
    def digests(prompt: list[int], **more: Any) -> list[bytes]:
        return list(sequence_of(prompt, **more).digests(len(prompt) // 2, 2))

    one = digests([1, 2, 3, 4, 5, 6])
    assert len(set(one)) == 3
    assert digests([1, 2, 3, 4, 9, 9])[:2] == one[:2]
    assert digests([1, 2, 3, 4, 9, 9])[2] != one[2]
    assert digests([9, 2, 3, 4, 5, 6])[2] != one[2]  # equal tokens, after others
    for other in (digests([1, 2], salt="a"), digests([1, 2], adapter="a")):
        assert other[0] != one[0]
    assert digests([1, 2], salt="a") != digests([1, 2], adapter="a")


def test_digests_go_on_with_the_text() -> None:
    text = sequence_of([1, 2, 3])
    first = text.digests(1, 2)
    text.append(4)
    assert text.digests(2, 2) == sequence_of([1, 2, 3, 4]).digests(2, 2)
    assert text.digests(1, 2) == first


def test_an_output_has_scores_where_they_are_asked_for() -> None:
    text = sequence_of([5])
    text.append(7)
    assert set(text.output("stop")) == {"tokens", "finish"}
    text = sequence_of([5], logprobs=2)
    text.append(7, TokenScores(-0.5, (7, 3), (-0.5, -2.0)))
    output = text.output("length")
    assert output["tokens"].tolist() == [7]
    assert output["finish"] == "length"
    assert output["logprobs"].tolist() == [-0.5]
    assert output["top_ids"].tolist() == [[7, 3]]
    assert output["top_logprobs"].dtype == np.float32


def test_an_item_without_parameters_is_refused() -> None:
    reduce: Reduce = item_of([1]).reduce
    with pytest.raises(ValueError, match="kind causal needs generation parameters"):
        Sequence.of(Item("causal", {"input_ids": np.array([1])}, reduce), NOBODY, 0)
    assert Sequence(GenerationParams(), [1], NOBODY, 0, b"").num_left == 1
