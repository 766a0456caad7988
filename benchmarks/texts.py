"""The texts of the benchmarks: real, mixed, in an order that never changes."""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def mixed_texts() -> list[str]:
    """banking77 queries, gsm8k questions, SQuAD contexts and SciTLDR papers, shuffled with a fixed seed.

    Short and long ones as a real corpus has them: the median is a sentence or two, the longest a page.
    """
    if not DATA.is_dir():
        sys.exit(f"the benchmarks need the shared data beside the checkout ({DATA.name})")
    with (DATA / "banking77/test.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    texts += [json.loads(line)["question"] for line in (DATA / "gsm8k/test.jsonl").open(encoding="utf-8")]
    squad = json.loads((DATA / "squad_v1.1/dev-v1.1.json").read_text("utf-8"))
    texts += [paragraph["context"] for article in squad["data"] for paragraph in article["paragraphs"]]
    texts += [" ".join(json.loads(line)["source"]) for line in (DATA / "scitldr_a/dev.jsonl").open(encoding="utf-8")]
    random.Random(0).shuffle(texts)
    return texts


def write_jsonl(path: Path, texts: list[str], rows: int) -> None:
    """`rows` lines {"text"}, the texts over and over, each repetition told apart so that none equals another."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            text = texts[row % len(texts)]
            number = row // len(texts)
            file.write(json.dumps({"text": f"{number} {text}" if number else text}) + "\n")


def write_varied(path: Path, texts: list[str], num_bytes: int) -> int:
    """Lines {"text"} until that many bytes of text are written: the texts over and over, each time with some words
    changed for words of another text, so that no line equals another. Returns the bytes of text."""
    dice = random.Random(1)
    words = [text.split(" ") for text in texts]
    size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < num_bytes:
            changed = list(words[dice.randrange(len(words))])
            for _ in range(1 + len(changed) // 10):
                other = words[dice.randrange(len(words))]
                changed[dice.randrange(len(changed))] = other[dice.randrange(len(other))]
            text = " ".join(changed)
            file.write(json.dumps({"text": text}) + "\n")
            size += len(text.encode())
    return size
