"""Log-probabilities of both engines against a forward over the whole text. What is drawn: test_generate.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hfray.engines.generate import generate_batch
from hfray.types import Item, Output
from tests.engines.continuous.support import bytes_of, engine_of, item_of, model_of, prompts

SHAPING: dict[str, Any] = {"repetition_penalty": 1.5, "temperature": 1.4, "top_p": 0.8}
"""None of it changes what a log-probability is."""


def items(**settings: Any) -> list[Item]:
    return [item_of(ids, seed=seed, **settings) for seed, ids in enumerate(prompts((3, 40, 11, 1)))]


def check(item: Item, output: Any, num_top: int) -> None:
    ids = np.concatenate([item.inputs["input_ids"], output["tokens"]])
    with torch.inference_mode():
        logits = model_of("llama")(torch.tensor(ids)[None]).logits[0, item.num_tokens - 1 : -1]
    wanted = logits.log_softmax(-1)
    best = wanted.topk(num_top, dim=-1)
    taken = wanted[torch.arange(len(output["tokens"])), torch.tensor(output["tokens"])]
    np.testing.assert_allclose(output["logprobs"], taken.numpy(), atol=1e-4)
    assert output["top_ids"].tolist() == best.indices.tolist()
    np.testing.assert_allclose(output["top_logprobs"], best.values.numpy(), atol=1e-4)
    assert output["top_ids"].shape == output["top_logprobs"].shape == (len(output["tokens"]), num_top)


@pytest.mark.parametrize("num_top", [0, 3])
@pytest.mark.parametrize("settings", [{}, SHAPING], ids=["greedy", "shaped"])
def test_the_batch_engine(num_top: int, settings: dict[str, Any]) -> None:
    asked = items(logprobs=num_top, **settings)
    outputs: list[Output] = generate_batch(model_of("llama"), asked, "cpu")
    assert len({len(output["tokens"]) for output in outputs}) > 1, "rows end at different steps"
    for item, output in zip(asked, outputs, strict=True):
        check(item, output, num_top)


@pytest.mark.parametrize("settings", [{}, SHAPING], ids=["greedy", "shaped"])
def test_the_continuous_engine_where_each_row_asks_for_its_own_number(settings: dict[str, Any]) -> None:
    """Under preemption, and beside rows that ask for none."""
    asked = [replace_logprobs(item, num) for item, num in zip(items(**settings), (0, 2, None, 5), strict=True)]
    with engine_of("llama", cache_bytes=bytes_of("llama", 22), max_step_tokens=7, max_running=7) as engine:
        outputs = engine.run(asked)
        assert engine.scheduler.preemptions > 0
    for item, output in zip(asked, outputs, strict=True):
        assert item.generation is not None
        if item.generation.logprobs is None:
            assert isinstance(output, dict)
            assert set(output) == {"tokens", "finish"}
        else:
            check(item, output, item.generation.logprobs)


def replace_logprobs(item: Item, number: int | None) -> Item:
    assert item.generation is not None
    return replace(item, generation=replace(item.generation, logprobs=number))
