"""Texts of an encoder-decoder that leave their batch: section `seq2seq` of benchmarks/generate.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel

from benchmarks.measure import ROUNDS, ratio, table
from hfray.engines import stopping
from hfray.engines.generate import generate_batch
from hfray.types import Generated, GenerationParams, Item

VOCABULARY, MEAN_LENGTH, LONGEST = 8000, 25, 128
SHARES = {
    "all stay to the end": 2.0,
    "leave when half have ended": 0.5,
    "leave when a quarter has ended": 0.25,
    "leave when an eighth has ended": 0.125,
}


def seq2seq(batches: Sequence[int] = (8, 32)) -> None:
    """The same batches of a random Marian model of the usual shape (6 + 6 layers of 512), float32. A share of the
    vocabulary ends a text, so that lengths are geometric; sampled with seeds, so that all sides draw the same texts."""
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=VOCABULARY, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    rows = []
    for size in batches:
        items = _items(size)
        seconds: dict[str, list[float]] = {name: [] for name in SHARES}
        usual = stopping.LEAVE_AT
        for _ in range(ROUNDS):
            for name, share in SHARES.items():
                stopping.LEAVE_AT = share
                started = time.perf_counter()
                with torch.inference_mode():
                    outputs = generate_batch(model, items, torch.device("cpu"))
                seconds[name].append(time.perf_counter() - started)
        stopping.LEAVE_AT = usual
        lengths = [len(output["tokens"]) for output in outputs]
        base = seconds["all stay to the end"]
        rows += [
            [f"{size}: {name}", f"{max(lengths)}", f"{statistics.mean(lengths):.0f}",
             f"{sum(lengths) / statistics.median(found):.0f}", f"{ratio(base, found):.2f}x"]
            for name, found in seconds.items()
        ]  # fmt: skip
    table("Texts of an encoder-decoder", ["batch", "longest text", "mean", "tokens/s", "faster by"], rows)


def _items(size: int) -> list[Item]:
    dice = np.random.default_rng(0)
    params = GenerationParams(
        max_new_tokens=LONGEST, temperature=1.0, eos_token_ids=tuple(range(1, 1 + VOCABULARY // MEAN_LENGTH))
    )
    return [_item(dice.integers(3, VOCABULARY, 20), params, seed) for seed in range(size)]


def _item(ids: Any, params: GenerationParams, seed: int) -> Item:
    return Item("seq2seq", {"input_ids": ids}, Generated(), replace(params, seed=seed))
