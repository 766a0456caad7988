"""The loader: what the ranks get, put together, is the order; it leaves the global random generator alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from hfray.tasks.features import MODES
from hfray.training.batches import Causal, Masked, Packed, Padding, Sequences
from hfray.training.loading import Collate, evaluation_loader, train_loader
from hfray.training.masking import Masking
from hfray.training.order import MicroBatches, SampleOrder, evaluation_share
from hfray.training.schedule import RunLength, Schedule
from hfray.training.tokens import TokenExamples
from tests.training.support import IDS, plain_rows, write_tokens

Opened = Callable[..., TokenExamples]
ROWS = plain_rows(30)
PACKED = pa.schema([("input_ids", IDS), ("position_ids", IDS), ("labels", IDS)])


@pytest.fixture
def opened() -> Iterator[Opened]:
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(closing(TokenExamples(*args, **settings)))


@pytest.fixture
def examples(tmp_path: Path, opened: Opened) -> TokenExamples:
    return opened(write_tokens(str(tmp_path), {"train": [ROWS[:17], ROWS[17:]]}))


def labels(examples: TokenExamples, world_size: int, stop: int, position: int = 0) -> list[list[int]]:
    """The examples of each global batch (their labels are their numbers), by what the ranks' loaders give."""
    collate = Collate(Sequences(Padding()))
    loaders = [
        train_loader(
            examples, MicroBatches(SampleOrder(30, 1), 2, 4 // world_size, world_size, rank, stop, position), collate
        )
        for rank in range(world_size)
    ]
    drawn = [np.concatenate([batch["labels"].numpy() for batch in step]) for step in zip(*loaders, strict=True)]
    flat = np.concatenate(drawn).tolist()
    return [flat[first : first + 8] for first in range(0, len(flat), 8)]


def test_ranks_learn_together_what_one_learns_alone(examples: TokenExamples) -> None:
    alone = labels(examples, 1, 48)
    assert [sorted(each) for each in alone] == [sorted(each) for each in labels(examples, 2, 48)]
    assert alone == labels(examples, 2, 48) == labels(examples, 4, 48)
    assert labels(examples, 2, 24) + labels(examples, 4, 48, 24) == alone
    assert sorted(chain.from_iterable([*alone[:3], alone[3][:6]])) == list(range(30))


def test_evaluation_gives_each_example_once(examples: TokenExamples) -> None:
    found = []
    for rank in range(4):
        share = evaluation_share(30, 4, rank)
        for batch in evaluation_loader(examples, share, 3, Collate(Sequences(Padding()))):
            assert set(batch) == {"input_ids", "attention_mask", "labels"}
            found += batch["labels"].tolist()
    assert found == list(range(30))
    assert list(evaluation_loader(examples, range(0), 3, Collate(Causal(Padding())))) == []


def test_masks_are_new_in_each_epoch_and_the_same_after_a_resume(examples: TokenExamples) -> None:
    collate = Collate(Masked(Padding(), Masking(4, 100)))

    def masked(position: int) -> list[Any]:
        batches = MicroBatches(SampleOrder(30, shuffle=False), 30, 1, 1, 0, 90, position)
        return [batch["labels"] for batch in train_loader(examples, batches, collate)]

    first, second, third = masked(0)
    assert not torch.equal(first, second)
    assert all(torch.equal(one, other) for one, other in zip((second, third), masked(30), strict=True))


def test_the_global_generator_is_left_alone(examples: TokenExamples) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    labels(examples, 2, 48)
    assert torch.equal(torch.get_rng_state(), before)


def test_packed_batches_reach_a_model(tmp_path: Path, opened: Opened) -> None:
    row = {"input_ids": [5, 6, 7, 8, 9, 1], "position_ids": [0, 1, 2, 0, 1, 0], "labels": [-100, 6, 7, -100, 9, -100]}
    examples = opened(write_tokens(str(tmp_path), {"train": [[row]]}, PACKED, mode="packed", packed=True, max_length=6))
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    losses = []
    for separation in ("position_ids", "block_mask"):
        collate: Any = Collate(Packed(), separation, model.dtype)  # type: ignore[arg-type]
        (batch,) = evaluation_loader(examples, [0], 1, pickle.loads(pickle.dumps(collate)))  # noqa: S301
        assert batch["use_cache"] is False
        assert ("attention_mask" in batch) == (separation == "block_mask")
        losses.append(model(**batch).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("killed", [2, 5])
def test_a_trainer_goes_on_bit_for_bit(tmp_path: Path, opened: Opened, killed: int) -> None:
    """What the worker function will rest on: Transformers' Trainer over these loaders and schedules, with dropout."""
    examples = opened(write_tokens(str(tmp_path / "tokens"), {"train": [ROWS]}))
    length = RunLength.of(30, 8, 2)
    seen: list[list[int]] = []

    class Tuner(Trainer):
        def get_train_dataloader(self) -> Any:
            batches = MicroBatches(SampleOrder(30, 1), 2, 4, 1, 0, length.stop, self.state.global_step * 8)
            return train_loader(examples, batches, Collate(Causal(Padding())))

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = Schedule("cosine", 1e-2, length, 0.2).make(optimizer or self.optimizer)
            return self.lr_scheduler

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            seen.append(inputs["input_ids"].flatten().tolist())
            return super().training_step(model, inputs, num_items_in_batch)

    def run(name: str, resume: Path | None = None) -> Any:
        seen.clear()
        torch.manual_seed(3)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / name), max_steps=length.num_steps, gradient_accumulation_steps=4,
            per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, report_to=[], ignore_data_skip=True,
            save_strategy="steps", save_steps=1, disable_tqdm=True, logging_strategy="no", seed=3,
        )  # fmt: skip
        model = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=16, n_layer=1, n_head=2, n_positions=16))
        tuner = Tuner(model=model, args=arguments, train_dataset=examples)
        if resume is not None:
            tuner.state.global_step = killed  # before the loader is made; the checkpoint sets it only afterwards
        tuner.train(resume_from_checkpoint=None if resume is None else str(resume))
        assert tuner.state.global_step == length.num_steps
        return model.state_dict(), [*seen]

    weights, whole = run("whole")
    again, rest = run("resumed", tmp_path / "whole" / f"checkpoint-{killed}")
    assert len(whole) == length.num_steps * 4
    assert rest == whole[killed * 4 :]
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


@pytest.mark.slow
def test_real_documents_come_back(tmp_path: Path, shared_data: Path, opened: Opened) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "phi-3-mini")
    with (shared_data / "gsm8k" / "test.jsonl").open() as file:
        rows = [{"text": f"{each['question']}\n{each['answer']}"} for each in map(json.loads, file)]
    mode = MODES["packed"](MODES["packed"].Options(), tokenizer, 512, {"text": pa.string()})
    columns = mode.pack(mode.encode(rows).columns)
    sequences = [{name: columns[name][i].tolist() for name in columns} for i in range(len(columns["labels"]))]  # type: ignore[union-attr]
    parts = [sequences[:100], sequences[100:]]
    path = write_tokens(str(tmp_path / "out"), {"train": parts}, PACKED, mode="packed", packed=True, max_length=512)
    examples = opened(path, spool=tmp_path / "spool")
    batches = MicroBatches(SampleOrder(len(examples)), 8, 1, 1, 0, len(examples) // 8 * 8 + 8)
    seen: dict[int, list[int]] = {}
    numbers = iter(SampleOrder(len(examples)).draws(0, batches.stop)[1].tolist())
    for batch in train_loader(examples, batches, Collate(Packed())):
        assert batch["input_ids"].shape == (8, 512)
        seen |= {next(numbers): ids for ids in batch["input_ids"].tolist()}
    assert [seen[number] for number in range(len(sequences))] == [each["input_ids"] for each in sequences]
