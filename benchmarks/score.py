"""Offline scoring, measured: ratios of sides that ran in turn on the same cores, medians over rounds.

    python benchmarks/score.py                  everything, about half an hour on two cores
    python benchmarks/score.py engines job      some sections: engines, products, job, noop, memory, plan

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
from benchmarks.texts import mixed_texts, write_jsonl
from benchmarks.watching import Peaks

ENGINE_ROWS = 400
JOB_ROWS = 2048
# Multiply-adds of MiniLM's linear layers for one token: 6 layers of 4 x 384 x 384 + 2 x 384 x 1536.
FLOPS_PER_TOKEN = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)


def engines() -> None:
    """hfray's engine against three ways people embed today."""
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for side in ("pipeline", "encode", "recipe", "engine"):
            rounds.setdefault(side, []).append(run_side(side, ENGINE_ROWS))
    rates = {side: [each["rows_per_s"] for each in rounds[side]] for side in ("pipeline", "encode", "recipe", "engine")}
    rows = [
        [side, f"{statistics.median(values):.1f}", f"{ratio(rates['engine'], values):.2f}"]
        for side, values in rates.items()
    ]
    table("all-MiniLM-L6-v2 embeddings", ["side", "rows/s", "engine is faster by"], rows)


def products() -> None:
    """hfray's engine against the processor's own limit."""
    whole: dict[str, list[dict[str, float]]] = {"engine": [], "matmul": []}
    for _ in range(ROUNDS):  # shards as a job has them: the more rows in one, the less padding
        for side, answers in whole.items():
            answers.append(run_side(side, JOB_ROWS))
    used = [each["tokens_per_s"] * FLOPS_PER_TOKEN for each in whole["engine"]]
    limit = [each["flops"] for each in whole["matmul"]]
    waste = statistics.median(each["padding"] for each in whole["engine"])
    print(f"On {JOB_ROWS:,} rows, half of them in each process, the engine reaches {100 * ratio(used, limit):.0f} % of")
    print("the matrix-product rate measured on the model's own shapes in the same precision")
    print(f"({statistics.median(limit) / 1e9:.0f} GFLOP/s); padding: {100 * waste:.1f} %.\n")


def job() -> None:
    """A whole job in steady state (first shard's start to last commit) against the engine alone on the same texts."""
    shares, fixed = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(Path(folder) / "texts.jsonl", mixed_texts(), JOB_ROWS)
        for number in range(ROUNDS):
            alone = run_side("engine", JOB_ROWS)["rows_per_s"]
            report, wall_s = score_job(Path(folder), f"out{number}", {"shard_rows": 512})
            rate = report["rows"] / report["scoring_s"]
            shares.append(rate / alone)
            fixed.append(wall_s - report["scoring_s"])
    print(f"A whole job of {JOB_ROWS:,} rows runs at {100 * statistics.median(shares):.0f} % of the engine alone;")
    print(f"around it go {statistics.median(fixed):.1f} s (start of Python, Ray and the model, report, end of Ray).\n")


def noop() -> None:
    """What a job costs that has nothing to compute."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "texts.jsonl").write_text('{"text": "one row"}\n')
        for number in range(ROUNDS):
            seconds.append(score_job(Path(folder), f"out{number}", {"engine": {"name": "fake"}})[1])
        started = time.perf_counter()
        score_job(Path(folder), "out0", {"engine": {"name": "fake"}})
        again = time.perf_counter() - started
    print(f"A job of one row with a fake engine takes {statistics.median(seconds):.1f} s from command to prompt;")
    print(f"run again, complete as it is, {again:.1f} s.\n")


def memory() -> None:
    """Driver and object store with a hundred times more rows."""
    peaks: dict[int, Peaks] = {}
    with tempfile.TemporaryDirectory() as folder:
        short = [text[:200] for text in mixed_texts()]
        for rows in (10_000, 1_000_000):
            write_jsonl(Path(folder) / "texts.jsonl", short, rows)
            peaks[rows] = Peaks()
            score_job(Path(folder), f"out{rows}", {"engine": {"name": "fake"}}, watch=peaks[rows])
    cells = []
    for name, both in (
        ("driver", [each.driver for each in peaks.values()]),
        ("object store", [each.object_store for each in peaks.values()]),
    ):
        few, many = (each / 2**20 for each in both)
        cells.append([name, f"{few:,.0f}", f"{many:,.0f}", f"{many - few:+,.0f}"])
    table("Peak memory in MiB, fake engine", ["process", "10,000 rows", "1,000,000 rows", "growth"], cells)


def plan() -> None:
    """Driver time and memory for very many shards; workers that do nothing."""
    result = json.loads(run([sys.executable, "-m", "benchmarks.shards"]).splitlines()[-1])
    print(f"{result['shards']:,} shards through Ray Data: {result['ms_per_shard']:.2f} ms each; of a plan of a million")
    print(f"shards the first answer comes after {result['first_s']:.1f} s; driver {result['driver_mib']:,.0f} MiB.\n")


def run_side(side: str, rows: int) -> dict[str, float]:
    answer: dict[str, float] = json.loads(
        run([sys.executable, "-m", "benchmarks.sides", side, str(rows)]).splitlines()[-1]
    )
    return answer


def score_job(
    folder: Path, output: str, changes: dict[str, Any], *, watch: Peaks | None = None
) -> tuple[dict[str, Any], float]:
    """A job over folder/texts.jsonl: see `run_job`."""
    spec = {
        "kind": "score", "name": "bench", "model": {"path": MODEL}, "task": {"name": "feature-extraction"},
        "input": {"path": str(folder / "texts.jsonl")}, "output": {"path": str(folder / output)},
        "workers": {"min": 2, "max": 2},
    } | changes  # fmt: skip
    return run_job(spec, folder, watch=watch)


SECTIONS: dict[str, Callable[[], None]] = {
    "engines": engines,
    "products": products,
    "job": job,
    "noop": noop,
    "memory": memory,
    "plan": plan,
}

if __name__ == "__main__":
    run_sections(SECTIONS)
