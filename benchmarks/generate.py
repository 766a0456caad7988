"""Text generation side by side on this machine: `python benchmarks/generate.py [SECTION ...]`. Prints Markdown.

Section `engines`, tokens per second of the same random Llama over the same requests, all known from the start:

    continuous      hfray's continuous engine
    static batches  Transformers' `generate` over padded batches of 8, in the order of arrival
    one by one      Transformers' `generate` over one request after another
    generate_batch  Transformers' own continuous batching, each request with its own length

Every request generates exactly as many tokens as its line in the Azure trace says, scaled down; tokens that a static
batch generates beyond a request's length do not count. Sides run in turn, on the same cores, in one process, each in a
thread that ends with it (the reason is in hfray/engines/threads.py).

Sections `decode` and `late` are in generate_steps.py, `served` (endpoints, against `transformers serve`) and `bound`
(of its requests) in generate_served.py, `seq2seq` in generate_seq2seq.py, `linear` in generate_linear.py.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.generate_linear import linear
from benchmarks.generate_models import (
    DTYPE_NAME,
    LONGEST,
    SCALE,
    SHAPES,
    Request,
    in_four_bits,
    item_of,
    llama,
    requests,
)
from benchmarks.generate_seq2seq import seq2seq
from benchmarks.generate_served import bound, served
from benchmarks.generate_steps import decode, late
from benchmarks.measure import ROUNDS, headline, ratio, table
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.threads import in_brief_thread

STATIC_BATCH = 8
ONE_BY_ONE_SHARE = 4  # of the requests a quarter: it is slow, and its rate does not depend on how many they are


def continuous(model: Any, asked: Sequence[Request]) -> float:
    loaded: Any = SimpleNamespace(model=model, device=torch.device("cpu"), adapters=None)
    engine = ContinuousEngine(loaded, online=False)
    try:
        engine.run([item_of(asked[0])])
        started = time.perf_counter()
        outputs = engine.run([item_of(each) for each in asked])
        seconds = time.perf_counter() - started
    finally:
        engine.close()
    assert [len(output["tokens"]) for output in outputs] == [new for _, new in asked]  # type: ignore[index]
    return sum(new for _, new in asked) / seconds


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
    gc.collect()  # the last one's cache, which is kept by a circle of references
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


def engines(shapes: Sequence[str], count: int, dtypes: Sequence[str], folder: Path) -> None:
    rows = []
    for shape in shapes:
        for dtype in dtypes:
            model = in_brief_thread(_model, shape, dtype, folder)
            rates: dict[str, list[float]] = {name: [] for name in SIDES}
            for number in range(ROUNDS):
                asked = requests(count, skip=number * count)
                for name, side in SIDES.items():
                    rates[name].append(in_brief_thread(side, model, asked))
            ours = rates["continuous"]
            for name, found in rates.items():
                times = "" if name == "continuous" else f"{ratio(ours, found):.1f}x"
                rows.append([f"{shape}, {dtype}: {name}", f"{statistics.median(found):.0f}", times])
    title = f"{count} requests of the trace, lengths / {SCALE}"
    table(title, ["side", "tokens/s", "continuous is faster by"], rows)


def _model(shape: str, dtype: str, folder: Path) -> Any:
    return in_four_bits(shape, folder) if dtype == "nf4" else llama(shape, getattr(torch, dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ["engines", "decode", "late", "linear", "seq2seq", "bound", "served"]
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--dtypes", nargs="+", choices=["bfloat16", "float32", "nf4"], default=[DTYPE_NAME, "nf4"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    for name in asked.sections:
        if name not in sections:
            parser.error(f"there is no section {name}; there are {', '.join(sections)}")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(asked.threads)
    headline()
    print(f"{asked.threads} threads.\n")
    whole = [getattr(torch, name) for name in asked.dtypes if name != "nf4"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in asked.sections or sections:
            if name == "engines":
                engines(asked.shapes, asked.requests, asked.dtypes, folder)
            elif name == "decode":
                decode(asked.shapes, whole)
            elif name == "late":
                for shape in asked.shapes:
                    late(shape, whole[0])
            elif name == "linear":
                for shape in asked.shapes:
                    linear(shape)
            elif name == "seq2seq":
                seq2seq()
            elif name == "bound":
                bound()
            else:
                served(folder)


if __name__ == "__main__":
    main()
