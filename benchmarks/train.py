"""Training, measured: how good what is trained becomes, on real data; how fast, and what it takes.

    python benchmarks/train.py                everything, about two hours on two cores
    python benchmarks/train.py banking tags   some sections: banking, tags, answers, words; and those of
                                              benchmarks/train_speed.py: packed, step, workers, memory, zero

Each result is then scored by a job of its own, whose metric must be the one of the training to the last digit. Prints
the Markdown of docs/benchmarks.md.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measure import MODEL, run_job, run_sections, table
from benchmarks.texts import DATA
from benchmarks.train_data import conll, paragraphs, squad, token_documents, write_rows
from benchmarks.train_speed import SPEED
from benchmarks.trigram import loss as trigram_loss

WORKERS = {"min": 2}
SQUAD_TRAINED = 8_000
VOCABULARY = 4_096
SEQUENCE = 256
TENTH = 10  # of the texts one in ten is for validation


def banking(folder: Path) -> None:
    """Bank customers' questions into 77 intents, fully tuned and with LoRA."""
    columns = {"columns": {"label": "category"}}
    train = {"path": str(DATA / "banking77/train.csv"), **columns}
    test = {"path": str(DATA / "banking77/test.csv"), **columns}
    rows = []
    for method, rate, epochs in (({"name": "full"}, 3e-4, 6), ({"name": "lora", "r": 16, "alpha": 32}, 2e-3, 5)):
        name = f"banking-{method['name']}"
        job = {
            "task": {"name": "text-classification"}, "method": method, "input": {"train": train, "validation": test},
            "trainer": trainer(rate, epochs, "accuracy"),
        }  # fmt: skip
        learned = learn(folder, name, job)
        scored = score(folder, name, {"name": "text-classification"}, test, "label")
        rows.append(cells(method["name"], "accuracy", learned, scored))
    show("banking77", rows)


def tags(folder: Path) -> None:
    """Entities of emerging kinds in noisy texts."""
    for part in ("train", "dev", "test"):
        write_rows(folder / f"wnut-{part}.jsonl", conll(DATA / f"wnut17/{part}.conll"))
    task = {"name": "token-classification"}
    paths = {part: {"path": str(folder / f"wnut-{part}.jsonl")} for part in ("train", "dev", "test")}
    job = {
        "task": task, "input": {"train": paths["train"], "validation": paths["dev"]},
        "trainer": trainer(5e-4, 8, "f1"),
    }  # fmt: skip
    learned = learn(folder, "wnut", job)
    scored = score(folder, "wnut", task, paths["dev"], "tags")
    test = score(folder, "wnut", task, paths["test"], "tags", output="wnut-test")
    show("wnut17, dev", [cells("full", "f1", learned, scored)])
    print(f"On the test file, scored by a job: f1 {100 * test['f1']:.1f} %.\n")


def answers(folder: Path) -> None:
    """Spans of paragraphs that answer questions; the questions of other paragraphs than those learned from."""
    questions = list(squad())
    write_rows(folder / "squad-train.jsonl", questions[:SQUAD_TRAINED])
    write_rows(folder / "squad-test.jsonl", questions[SQUAD_TRAINED:])
    task = {"name": "question-answering"}
    train, test = ({"path": str(folder / f"squad-{part}.jsonl")} for part in ("train", "test"))
    job = {
        "task": task, "input": {"train": train, "validation": test}, "mode": {"name": "windows", "stride": 64},
        "max_length": 256, "trainer": trainer(3e-4, 3, "f1"),
    }  # fmt: skip
    learned = learn(folder, "squad", job)
    scored = score(folder, "squad", task, test, "answers")
    rows = [cells("full", metric, learned, scored, percent=1) for metric in ("f1", "exact_match")]
    show("SQuAD", rows)


def words(folder: Path) -> None:
    """A small Llama from scratch on Shakespeare and Wikipedia, against a trigram model of the same tokens."""
    texts = [*paragraphs(DATA / "tinyshakespeare/input.txt", "\n\n"), *paragraphs(DATA / "wikitext2_raw/wiki.test.raw")]
    sources = {"train": [each for number, each in enumerate(texts) if number % TENTH], "validation": texts[::TENTH]}
    for part, some in sources.items():
        write_rows(folder / f"words-{part}.jsonl", ({"text": text} for text in some))
    paths = {part: {"path": str(folder / f"words-{part}.jsonl")} for part in sources}
    job(folder, {
        "kind": "tokenize", "name": "words-tokenizer", "input": paths["train"],
        "mode": {"name": "tokenizer", "algorithm": "byte-bpe", "vocab_size": VOCABULARY},
        "output": {"path": str(folder / "words-tokenizer")},
    })  # fmt: skip
    model = str(folder / "words-tokenizer/tokenizer")
    tokens = {part: folder / f"words-{part}" for part in sources}
    for part, path in tokens.items():
        job(folder, {
            "kind": "tokenize", "name": "words-tokens", "model": {"path": model}, "input": paths[part],
            "mode": "packed", "max_length": SEQUENCE, "output": {"path": str(path)},
        })  # fmt: skip
    learned = learn(folder, "words", {
        "task": {"name": "text-generation"},
        "model": {
            "path": model,
            "config": {
                "model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": SEQUENCE,
                "tie_word_embeddings": True,
            },
        },
        "input": {part: str(path) for part, path in tokens.items()},
        "global_batch_size": 8,
        "trainer": trainer(1e-3, 6, "loss")
        | {"per_device_train_batch_size": 4, "weight_decay": 0.1, "greater_is_better": False},
    })  # fmt: skip
    task = {"name": "perplexity", "max_length": SEQUENCE, "append_eos": True}
    scored = score(folder, "words", task, paths["validation"])
    documents = [list(token_documents(path / "data/train")) for path in tokens.values()]
    trigram = trigram_loss(*documents, VOCABULARY)
    found = {"trigram": trigram, "Llama, untrained": learned.untrained["loss"], "Llama": learned.best["loss"]}
    rows = [[side, f"{nats:.5f}", f"{math.exp(nats):.1f}", ""] for side, nats in found.items()]
    rows[-1][-1] = same(learned.best["loss"], scored["loss"])
    header = ["model", "validation loss, nats a token", "perplexity", "scored by a job of its own"]
    table("Shakespeare and Wikipedia", header, rows)


# -- jobs


@dataclass(frozen=True)
class Learned:
    """Metrics of a run's evaluations."""

    untrained: dict[str, float]
    """Before the first step."""
    best: dict[str, float]
    best_is_last: bool


def learn(folder: Path, name: str, changes: dict[str, Any]) -> Learned:
    """A training job."""
    report = job(folder, {
        "kind": "train", "name": name, "model": {"path": MODEL}, "global_batch_size": 32, "workers": WORKERS,
        "output": {"path": str(folder / name)}, **changes,
    })  # fmt: skip
    metric = changes["trainer"]["metric_for_best_model"]
    untrained, *evaluations = [each["metrics"] for each in report["training"]["evaluations"]]
    choose = min if metric == "loss" else max
    best = choose(evaluations, key=lambda each: each[metric])
    return Learned(untrained, best, best is evaluations[-1])


def score(
    folder: Path, name: str, task: dict[str, Any], source: dict[str, Any], label: str = "", *, output: str = ""
) -> dict[str, float]:
    """Metrics of a score job with what a run left. label: the reference column, "" where there is none."""
    report = job(folder, {
        "kind": "score", "name": f"{name}-scored", "model": {"path": str(folder / name), "dtype": "float32"},
        "task": task, "input": source, "metrics": {"label": label} if label else {},
        "output": {"path": str(folder / (output or f"{name}-scored"))},
    })  # fmt: skip
    return dict(report["metrics"])


def job(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    return run_job(spec, folder)[0]


def trainer(rate: float, epochs: int, metric: str) -> dict[str, Any]:
    return {
        "num_train_epochs": epochs, "learning_rate": rate, "warmup_steps": 0.1, "per_device_train_batch_size": 16,
        "load_best_model_at_end": True, "metric_for_best_model": metric, "eval_on_start": True,
    }  # fmt: skip


# -- what is printed


def cells(side: str, metric: str, learned: Learned, scored: dict[str, float], *, percent: int = 100) -> list[str]:
    """percent: what makes the metric one."""
    best = learned.best[metric]
    found = [f"{percent * each:.1f} %" for each in (learned.untrained[metric], best)]
    which = "the last" if learned.best_is_last else "an earlier one"
    return [side, metric, *found, which, same(best, scored[metric])]


def same(learned: float, scored: float) -> str:
    """Whether a metric of a training and that of a job with its result are one, to the last digit."""
    return "the same" if learned == scored else f"{scored!r}, not {learned!r}"


def show(title: str, rows: list[list[str]]) -> None:
    header = ["method", "metric", "untrained", "best evaluation", "which is", "scored by a job of its own"]
    table(title, header, rows)


SECTIONS: dict[str, Callable[[Path], None]] = {
    "banking": banking, "tags": tags, "answers": answers, "words": words, **SPEED,
}  # fmt: skip

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run_sections(SECTIONS, Path(folder))
