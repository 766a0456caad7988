"""The other sides of the training comparison, each a process of its own that prints JSON.

    trainer PLAN    Transformers' `Trainer` alone over a tokenised folder, as its documentation has it; packed sequences
                    are taken apart into their documents, which are padded to the longest of a batch
    loss PLAN       the mean loss a token of result folders on the documents of a tokenised folder
    baseline        the peak memory of a process that has imported what a worker imports
    zero PLAN       bytes of weights that each of two ranks holds between steps, for each ZeRO stage of the plan

PLAN is a file of JSON. The clock of `trainer` starts with the end of step PLAN["warm_up"].
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.train_data import IGNORED, token_documents


def trainer(plan: dict[str, Any]) -> dict[str, Any]:
    """PLAN: model (a folder with a configuration), scratch (whether its weights are drawn), auto_model, tokens (a
    folder of parts), packed, arguments (TrainingArguments), threads, warm_up, save (a folder for the model, or "")."""
    import torch
    import transformers

    torch.set_num_threads(plan["threads"])
    torch.manual_seed(0)
    auto_class = getattr(transformers, plan["auto_model"])
    config = transformers.AutoConfig.from_pretrained(plan["model"], **plan.get("config", {}))
    make, source = (auto_class.from_config, ()) if plan["scratch"] else (auto_class.from_pretrained, (plan["model"],))
    model = make(*source, config=config)
    rows = _documents(plan["tokens"]) if plan["packed"] else _rows(plan["tokens"])
    seen = {"tokens": 0, "positions": 0}

    def collate(some: list[dict[str, Any]]) -> dict[str, Any]:
        batch = _padded(some)
        seen["tokens"] += int(batch["attention_mask"].sum())
        seen["positions"] += batch["input_ids"].numel()
        return batch

    marks: dict[int, tuple[float, float, dict[str, int]]] = {}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            marks[state.global_step] = time.perf_counter(), time.process_time(), dict(seen)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, seed=0, **plan["arguments"],
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]
        ).train()
    if plan["save"]:
        model.save_pretrained(plan["save"])
    # Batches are made one ahead, at the end of the last step but one as at any before.
    (first_s, first_cpu_s, first), (last_s, last_cpu_s, last) = marks[plan["warm_up"]], marks[max(marks) - 1]
    return {
        "steps": max(marks),
        "tokens": seen["tokens"],
        "padding": 1 - seen["tokens"] / seen["positions"],
        "tokens_per_s": (last["tokens"] - first["tokens"]) / (last_s - first_s),
        "positions_per_s": (last["positions"] - first["positions"]) / (last_s - first_s),
        "cores": (last_cpu_s - first_cpu_s) / (last_s - first_s),
    }


def loss(plan: dict[str, Any]) -> list[float]:
    """PLAN: models (folders), tokens (a folder of parts). Nats a token, one document at a time: no padding, nothing
    packed, no code of either side."""
    import torch
    import transformers

    documents = list(token_documents(Path(plan["tokens"])))
    found = []
    for path in plan["models"]:
        model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        nats, tokens = 0.0, 0
        with torch.inference_mode():
            for document in documents:
                ids = torch.tensor([document])
                nats += float(model(input_ids=ids, labels=ids).loss) * (len(document) - 1)
                tokens += len(document) - 1
        found.append(nats / tokens)
    return found


def baseline() -> int:
    import deepspeed
    import peft
    import ray.train.torch
    import transformers
    from transformers import BertForSequenceClassification, Trainer

    import hfray.training.run
    import hfray.training.worker
    from hfray.training.memory_use import peak_memory_bytes

    used = (deepspeed, peft, ray, transformers, hfray, BertForSequenceClassification, Trainer)
    return peak_memory_bytes() if all(used) else 0


def zero(plan: dict[str, Any]) -> dict[str, list[int]]:
    """PLAN: model (a folder with weights), stages."""
    return {str(stage): _two_ranks(plan["model"], stage) for stage in plan["stages"]}


def _two_ranks(model: str, stage: int) -> list[int]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    answers = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(rank, port, model, stage, answers)) for rank in range(2)]
    for each in ranks:
        each.start()
    found = [answers.get() for _ in ranks]
    for each in ranks:
        each.join()
    return found


def _rank(rank: int, port: int, path: str, stage: int, answers: Any) -> None:
    from hfray.training import environment

    environment.prepare(on_gpu=False, local_world_size=2)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    import deepspeed
    import torch
    import transformers

    from hfray.training.deepspeed import BatchShape, config_for
    from hfray.training.size import size_of

    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    config = transformers.AutoConfig.from_pretrained(path)
    size = size_of(config, "AutoModelForSequenceClassification")
    batch = BatchShape(2, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, max_steps=2, per_device_train_batch_size=1, save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True,
            deepspeed=config_for(stage, batch, size, precision="fp32", max_grad_norm=1.0, on_gpu=False),
        )  # fmt: skip
        model = transformers.AutoModelForSequenceClassification.from_pretrained(path, config=config)
        rows = [{"input_ids": list(range(16)), "labels": 0}] * 4
        transformers.Trainer(model=model, args=arguments, train_dataset=rows, data_collator=_padded).train()
    answers.put(sum(_held(each) for each in model.parameters()))
    torch.distributed.destroy_process_group()


def _held(weight: Any) -> int:
    """Bytes: of a whole weight, or of this rank's part of one that is divided."""
    part = getattr(weight, "ds_tensor", None)
    return int(weight.numel() * weight.element_size() + (0 if part is None else part.numel() * part.element_size()))


def _documents(folder: str) -> list[dict[str, Any]]:
    return [{"input_ids": each, "labels": each} for each in token_documents(Path(folder))]


def _rows(folder: str) -> list[dict[str, Any]]:
    return list(_read(Path(folder)))


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for part in sorted(folder.glob("*.parquet")):
        yield from pq.read_table(part, columns=["input_ids", "labels"]).to_pylist()


def _padded(some: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    length = max(len(each["input_ids"]) for each in some)

    def column(rows: list[list[int]], fill: int) -> Any:
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    ids = [each["input_ids"] for each in some]
    labels = [each["labels"] for each in some]
    return {
        "input_ids": column(ids, 0),
        "attention_mask": column([[1] * len(each) for each in ids], 0),
        "labels": column(labels, IGNORED) if isinstance(labels[0], list) else torch.tensor(labels),
    }


SIDES: dict[str, Callable[..., Any]] = {"trainer": trainer, "loss": loss, "baseline": baseline, "zero": zero}

if __name__ == "__main__":
    given = [json.loads(Path(each).read_text("utf-8")) for each in sys.argv[2:]]
    print(json.dumps(SIDES[sys.argv[1]](*given)))
