"""Real tokenizers, real texts and a way to answer rows with a real tiny model, for the generating tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Tokenizer

from hfray.engines.generate import generate_batch
from hfray.errors import RowError
from tests.conftest import SHARED_DATA


@lru_cache
def tokenizer_of(name: str) -> Any:
    """gpt2 (byte-level BPE), t5-small (Unigram) or phi-3-mini (BPE with byte fallback); skips without the data."""
    folder = SHARED_DATA / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no shared data: tokenizers/{name}")
    if name == "gpt2":
        return GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    return AutoTokenizer.from_pretrained(folder)


@lru_cache
def contexts(language: str, count: int = 12) -> tuple[str, ...]:
    """Paragraphs of XQuAD."""
    path = SHARED_DATA / "xquad" / f"xquad.{language}.json"
    if not path.is_file():
        pytest.skip(f"no shared data: xquad/{path.name}")
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    return tuple(paragraph["context"] for article in data for paragraph in article["paragraphs"])[:count]


@torch.inference_mode()
def answer(task: Any, model: Any, rows: Sequence[dict[str, Any]], options: Any = None) -> list[Any]:
    """Encode, generate in one batch, decode: one result or RowError per row."""
    encoded = task.encode(rows, options)
    items = [item for each in encoded if not isinstance(each, RowError) for item in each.items]
    outputs = generate_batch(model, items, "cpu")
    results: list[Any] = []
    for each in encoded:
        if isinstance(each, RowError):
            results.append(each)
        else:
            results.append(task.decode([outputs.pop(0) for _ in each.items], each.carry))
    return results
