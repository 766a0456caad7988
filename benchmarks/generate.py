"""Text generation side by side on this machine: `python benchmarks/generate.py [engines]`. Prints tables in Markdown.

Section `engines`, tokens per second of the same random Llama over the same requests, all known from the start:

    continuous      hfray's continuous engine
    static batches  Transformers' `generate` over padded batches of 8, in the order of arrival
    one by one      Transformers' `generate` over one request after another
    generate_batch  Transformers' own continuous batching, each request with its own length

Every request generates exactly as many tokens as its line in the Azure trace says, scaled down; tokens that a static
batch generates beyond a request's length do not count. Sides run in turn, on the same cores, in one process.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measure import ROOT, ROUNDS, headline, ratio, table
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.types import Generated, GenerationParams, Item

TRACE = ROOT.parent / "shared" / "data" / "azure_llm_trace" / "AzureLLMInferenceTrace_conv.csv"
SHAPES = {
    "28 M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8},
    "160 M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 10, "num_attention_heads": 16},
}
VOCABULARY = 16_000
SCALE = 8
LONGEST = 512
STATIC_BATCH = 8
ONE_BY_ONE_SHARE = 4  # of the requests a quarter: it is slow, and its rate does not depend on how many they are
Request = tuple[list[int], int]


def llama(shape: str, dtype: torch.dtype) -> Any:
    """Random weights; no end-of-sequence token, so that lengths are the trace's."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=4096, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def requests(count: int, *, skip: int = 0) -> list[Request]:
    """(prompt, number of new tokens) of consecutive lines of the trace."""
    generator = np.random.default_rng(skip)
    found: list[Request] = []
    with TRACE.open() as file:
        for line in list(csv.DictReader(file))[skip : skip + count]:
            length = min(LONGEST, max(4, int(line["ContextTokens"]) // SCALE))
            new = min(LONGEST, max(2, int(line["GeneratedTokens"]) // SCALE))
            found.append((generator.integers(1, VOCABULARY, length).tolist(), new))
    return found


def continuous(model: Any, asked: Sequence[Request], **settings: Any) -> float:
    engine = ContinuousEngine(SimpleNamespace(model=model, device=torch.device("cpu"), adapters=None), **settings)  # type: ignore[arg-type]
    try:
        engine.run([_item(asked[0])])
        started = time.perf_counter()
        outputs = engine.run([_item(each) for each in asked])
        seconds = time.perf_counter() - started
    finally:
        engine.close()
    assert [len(output["tokens"]) for output in outputs] == [new for _, new in asked]  # type: ignore[index]
    return sum(new for _, new in asked) / seconds


def _item(request: Request) -> Item:
    prompt, new = request
    return Item("causal", {"input_ids": np.array(prompt)}, Generated(), GenerationParams(max_new_tokens=new))


def static_batches(model: Any, asked: Sequence[Request], size: int = STATIC_BATCH) -> float:
    started = time.perf_counter()
    for start in range(0, len(asked), size):
        batch = asked[start : start + size]
        longest = max(len(prompt) for prompt, _ in batch)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _ in batch])
        mask = (ids != 0).long()
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=max(new for _, new in batch), do_sample=False, pad_token_id=0
                ),
            )
    return sum(new for _, new in asked) / (time.perf_counter() - started)


def one_by_one(model: Any, asked: Sequence[Request]) -> float:
    return static_batches(model, asked[::ONE_BY_ONE_SHARE], size=1)


def generate_batch(model: Any, asked: Sequence[Request]) -> float:
    """Its memory is capped: it would size its cache by the machine's memory otherwise."""
    blocks = 2 * sum(-(-(len(prompt) + new) // 256) for prompt, new in asked)
    config = ContinuousBatchingConfig(num_blocks=max(64, blocks), max_batch_tokens=256)
    settings = GenerationConfig(do_sample=False, pad_token_id=0, max_new_tokens=LONGEST)
    manager_of = model.continuous_batching_context_manager
    with manager_of(generation_config=settings, continuous_batching_config=config, block=True, timeout=5) as manager:
        started = time.perf_counter()
        for prompt, new in asked:
            manager.add_request(prompt, max_new_tokens=new, eos_token_id=-1)
        done = 0
        while done < len(asked):
            result = manager.get_result(timeout=1)
            done += result is not None and result.is_finished()
        seconds = time.perf_counter() - started
    return sum(new for _, new in asked) / seconds


SIDES: dict[str, Callable[[Any, Sequence[Request]], float]] = {
    "continuous": continuous,
    "static batches of 8": static_batches,
    "one by one": one_by_one,
    "generate_batch": generate_batch,
}


def engines(shapes: Sequence[str], count: int, dtypes: Sequence[torch.dtype]) -> None:
    rows = []
    for shape in shapes:
        for dtype in dtypes:
            model = llama(shape, dtype)
            rates: dict[str, list[float]] = {name: [] for name in SIDES}
            for number in range(ROUNDS):
                asked = requests(count, skip=number * count)
                for name, side in SIDES.items():
                    rates[name].append(side(model, asked))
            ours = rates["continuous"]
            label = f"{shape}, {str(dtype).removeprefix('torch.')}"
            for name, found in rates.items():
                times = "" if name == "continuous" else f"{ratio(ours, found):.1f}x"
                rows.append([f"{label}: {name}", f"{statistics.median(found):.0f}", times])
    title = f"{count} requests of the trace, lengths / {SCALE}"
    table(title, ["side", "tokens/s", "continuous is faster by"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="?", choices=["engines"], default="engines")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["28 M"])
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(asked.threads)
    headline()
    print(f"{asked.threads} threads.\n")
    engines(asked.shapes, asked.requests, [getattr(torch, name) for name in asked.dtypes])


if __name__ == "__main__":
    main()
