"""Tokenising, measured: ratios of sides that ran in turn on the same cores, medians over rounds.

    python benchmarks/tokens.py                  everything, about twenty minutes on two cores
    python benchmarks/tokens.py speed packing    some sections: speed, packing, memory

Prints the Markdown of docs/benchmarks.md. Machines differ and are shared: read the ratios.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measure import MODEL, ROUNDS, ratio, run, run_job, run_sections, table
from benchmarks.texts import DATA, mixed_texts, write_varied
from benchmarks.watching import Peaks

CORPUS_BYTES = 200_000_000
RAW_BYTES = 30_000_000
GIANT_BYTES = 100_000_000


def speed() -> None:
    """The whole job, and its steady state, against the bare tokenizer and `datasets.map`."""
    rates: dict[str, list[float]] = {"encode_batch_fast": [], "datasets.map": [], "steady state": [], "whole job": []}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        num_bytes = write_varied(corpus, mixed_texts(), CORPUS_BYTES)
        for number in range(ROUNDS):
            rates["encode_batch_fast"].append(raw_rate(corpus))
            report, wall_s = run_job(job(corpus, Path(folder) / f"out{number}"), Path(folder))
            rates["steady state"].append(num_bytes / report["scoring_s"])
            rates["whole job"].append(num_bytes / wall_s)
            rates["datasets.map"].append(num_bytes / map_s(corpus))
    raw, mapped = rates["encode_batch_fast"], rates["datasets.map"]
    rows = [
        [side, f"{statistics.median(each) / 1e6:.1f}", *(f"{ratio(each, other):.2f}" for other in (raw, mapped))]
        for side, each in rates.items()
    ]
    header = ["side", "MB/s", "of encode_batch_fast", "of datasets.map"]
    table(f"WordPiece, {num_bytes / 1e6:.0f} MB of text", header, rows)


def packing() -> None:
    """How full packed sequences are."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        with corpus.open("w", encoding="utf-8") as file:
            for name in ("gsm8k/train.jsonl", "gsm8k/test.jsonl"):
                for line in (DATA / name).open(encoding="utf-8"):
                    row = json.loads(line)
                    file.write(json.dumps({"text": f"{row['question']}\n{row['answer']}"}) + "\n")
            for name in ("train", "dev", "test"):
                for line in (DATA / f"scitldr_a/{name}.jsonl").open(encoding="utf-8"):
                    file.write(json.dumps({"text": " ".join(json.loads(line)["source"])}) + "\n")
        rows = []
        for strategy in ("best_fit", "concatenate"):
            changes = {
                "mode": {"name": "packed", "strategy": strategy},
                "model": {"path": gpt2(Path(folder))},
                "max_length": 2048,
            }
            report, _ = run_job(job(corpus, Path(folder) / strategy, **changes), Path(folder))
            filled = report["tokens"] / report["padded_tokens"]
            rows.append(
                [strategy, f"{report['corpus']['documents']:,}", f"{report['rows']:,}", f"{100 * filled:.2f} %"]
            )
    table("gsm8k and SciTLDR, 2,048 tokens", ["strategy", "documents", "sequences", "filled"], rows)


def memory() -> None:
    """The largest worker: a small corpus, a large one, a document of 100 MB."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        for name, num_bytes in (("20 MB", CORPUS_BYTES // 10), ("200 MB", CORPUS_BYTES)):
            write_varied(corpus, mixed_texts(), num_bytes)
            peaks = Peaks()
            _, wall_s = run_job(job(corpus, Path(folder) / name), Path(folder), watch=peaks)
            rows.append([name, f"{peaks.worker / 2**20:,.0f}", f"{wall_s:.0f}"])
        giant = " ".join(mixed_texts())
        giant = " ".join([giant] * (GIANT_BYTES // len(giant) + 1))[:GIANT_BYTES]
        corpus.write_text(json.dumps({"text": giant}) + "\n", encoding="utf-8")
        model = {"path": gpt2(Path(folder))}
        spec = job(corpus, Path(folder) / "giant", mode="packed", max_length=2048, model=model)
        peaks = Peaks()
        _, wall_s = run_job(spec, Path(folder), watch=peaks)
        rows.append(["one document of 100 MB, packed", f"{peaks.worker / 2**20:,.0f}", f"{wall_s:.0f}"])
    table("Peak memory of a worker", ["corpus", "MiB", "seconds"], rows)


def gpt2(folder: Path) -> str:
    """A folder with GPT-2's tokenizer, as `save_pretrained` writes it."""
    from transformers import GPT2Tokenizer

    source = DATA / "tokenizers/gpt2"
    vocab = json.loads((source / "vocab.json").read_text("utf-8"))
    merges = [tuple(line.split()) for line in (source / "merges.txt").read_text("utf-8").splitlines()[1:] if line]
    GPT2Tokenizer(vocab=vocab, merges=merges).save_pretrained(folder / "gpt2")
    return str(folder / "gpt2")


def job(corpus: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "tokenize", "name": "bench", "model": {"path": MODEL}, "mode": "plain", "max_length": 512,
        "input": {"path": str(corpus)}, "output": {"path": str(output)}, "workers": {"min": 2, "max": 2},
    } | changes  # fmt: skip


def raw_rate(corpus: Path) -> float:
    """Bytes of text in a second through the bare library."""
    answer = run([sys.executable, "-m", "benchmarks.token_sides", "raw", str(corpus), str(RAW_BYTES)])
    return float(json.loads(answer.splitlines()[-1])["bytes_per_s"])


def map_s(corpus: Path) -> float:
    """Seconds from command to exit of a script that maps the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run([sys.executable, "-m", "benchmarks.token_sides", "map", str(corpus), folder])
        return time.perf_counter() - started


SECTIONS: dict[str, Callable[[], None]] = {"speed": speed, "packing": packing, "memory": memory}

if __name__ == "__main__":
    run_sections(SECTIONS)
