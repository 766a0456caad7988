"""Examples to the tensors of one micro-batch. Knows columns, padding and labels; not where examples come from.

A micro-batch is padded to its longest example, always on the right: positions count from the first token then, and
spans keep their places. Examples that were padded when they were tokenised bring their `attention_mask`. Everything is
numpy until the last step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from hfray.data.tokens import Tokens
from hfray.errors import SpecError
from hfray.tasks.features.base import IGNORED
from hfray.training.masking import Masking
from hfray.training.tokens import Example
from hfray.types import Array

Batch = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Padding:
    """What fills examples up, and how far."""

    pad_token_id: int = 0
    pad_token_type_id: int = 0
    multiple_of: int = 1
    """The length is rounded up to a multiple of it (8 suits tensor cores), as far as `max_length` allows."""
    max_length: int | None = None
    """The most that the model takes."""

    def length(self, lengths: Sequence[int]) -> int:
        """Of a batch of examples of these lengths."""
        longest = max(lengths)
        rounded = -(-longest // self.multiple_of) * self.multiple_of
        return rounded if self.max_length is None else max(longest, min(rounded, self.max_length))

    def pad(self, rows: Sequence[Array], fill: int, length: int | None = None) -> Array:
        """int64 [num_rows, length]."""
        padded = np.full((len(rows), length or self.length([len(row) for row in rows])), fill, np.int64)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        return padded


class Collator(Protocol):
    """What makes one kind of batch."""

    columns: ClassVar[tuple[str, ...]]
    """Those that it reads; some need not be there."""
    padded: ClassVar[tuple[str, ...]]
    """Those whose longest decides how much is computed, each by itself; the others are as long."""

    def __call__(self, examples: Sequence[Example]) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Sequences:
    """One sequence each (plain, pair, windows): the ids, and what stands beside them as it is: a class, a number, one
    0/1 for each class, or the places of an answer."""

    padding: Padding
    columns: ClassVar[tuple[str, ...]] = (
        "input_ids", "token_type_ids", "attention_mask", "labels", "start_positions", "end_positions",
    )  # fmt: skip
    padded: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = _inputs(examples, self.padding)
        for name in ("labels", "start_positions", "end_positions"):
            if name in examples[0].columns:
                values = np.stack([example.columns[name] for example in examples])
                batch[name] = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
        return batch


@dataclass(frozen=True, slots=True)
class TokenLabels:
    """A label for each token (words, chat): padded with -100."""

    padding: Padding
    columns: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask", "labels")
    padded: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = _inputs(examples, self.padding)
        batch["labels"] = self.padding.pad(_column(examples, "labels"), IGNORED, batch["input_ids"].shape[1])
        return batch


@dataclass(frozen=True, slots=True)
class Causal:
    """Texts of a language model, one a row: the labels are the ids, which the model itself shifts."""

    padding: Padding
    columns: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    padded: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = _inputs(examples, self.padding)
        batch["labels"] = np.where(batch["attention_mask"] == 1, batch["input_ids"], IGNORED)
        return batch


@dataclass(frozen=True, slots=True)
class Targets:
    """A source and its target (seq2seq), each padded by itself; the model makes its decoder's inputs of the labels."""

    padding: Padding
    columns: ClassVar[tuple[str, ...]] = ("input_ids", "labels")
    padded: ClassVar[tuple[str, ...]] = ("input_ids", "labels")

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = _inputs(examples, self.padding)
        batch["labels"] = self.padding.pad(_column(examples, "labels"), IGNORED)
        return batch


@dataclass(frozen=True, slots=True)
class Masked:
    """Texts of a masked language model: see `masking`. Evaluation, whose epoch is always 0, masks alike every time."""

    padding: Padding
    masking: Masking
    columns: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")
    padded: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = _inputs(examples, self.padding)
        pairs = [self.masking.apply(each.columns["input_ids"], each.epoch, each.number) for each in examples]
        length = batch["input_ids"].shape[1]
        batch["input_ids"] = self.padding.pad([seen for seen, _ in pairs], self.padding.pad_token_id, length)
        batch["labels"] = self.padding.pad([labels for _, labels in pairs], IGNORED, length)
        return batch


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of many documents, all of one length, without an attention mask: `position_ids` tell documents apart
    (`models.packed_attention.packed_inputs` says how the model is told)."""

    columns: ClassVar[tuple[str, ...]] = ("input_ids", "position_ids", "labels")
    padded: ClassVar[tuple[str, ...]] = ()

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return {name: np.stack(_column(examples, name)).astype(np.int64) for name in self.columns}


def collator_for(tokens: Tokens, task: str, padding: Padding, masking: Masking | None = None) -> Collator:
    """What makes batches of a tokenised folder's examples for a task. masking: of the task fill-mask.

    Raises SpecError: the folder's examples are not for this task.
    """
    if tokens.packed:
        return _fitting(Packed(), tokens, task, ("text-generation",))
    if "chosen_input_ids" in tokens.columns:
        raise SpecError(f"task {task}: the tokens are preference pairs, for which there is no training yet")
    if task == "fill-mask":
        if masking is None:
            raise SpecError("task fill-mask: the tokenizer has no mask token, so nothing can be masked")
        return _fitting(Masked(padding, masking), tokens, task, ("fill-mask",))
    collators: Mapping[str, tuple[Collator, tuple[str, ...]]] = {
        "plain": (Sequences(padding), ("text-classification", "text-ranking")),
        "pair": (Sequences(padding), ("text-classification", "text-ranking")),
        "windows": (Sequences(padding), ("question-answering",)),
        "words": (TokenLabels(padding), ("token-classification",)),
        "seq2seq": (Targets(padding), ("summarization", "translation", "text2text-generation")),
        "chat": (TokenLabels(padding), ("text-generation",)),
    }
    if task == "text-generation" and tokens.mode == "plain":
        return Causal(padding)
    collator, tasks = collators[tokens.mode]
    return _fitting(collator, tokens, task, tasks)


def columns_read(collator: Collator, tokens: Tokens) -> tuple[str, ...]:
    """What must be read of a tokenised folder to make such batches."""
    return tuple(name for name in tokens.columns if name in collator.columns)


def to_tensors(batch: Mapping[str, Array]) -> dict[str, Any]:
    """The same memory as torch tensors."""
    import torch

    return {name: torch.from_numpy(array) for name, array in batch.items()}


_NEEDED = {"Sequences": ("labels", "start_positions")}


def _fitting(collator: Collator, tokens: Tokens, task: str, tasks: tuple[str, ...]) -> Collator:
    if task not in tasks:
        packed = "packed " if tokens.packed else ""
        raise SpecError(
            f"task {task}: the tokens are {packed}features of mode {tokens.mode}, which train {' and '.join(tasks)}; "
            "tokenise for this task (`task:` in the tokenize job)"
        )
    wanted = _NEEDED.get(type(collator).__name__, ())
    if wanted and not set(wanted) & set(tokens.columns):
        raise SpecError(
            f"task {task}: the tokens have no labels (columns {', '.join(tokens.columns)}); tokenise rows that have a "
            f"column {'answers' if tokens.mode == 'windows' else 'label'}"
        )
    return collator


def _column(examples: Sequence[Example], name: str) -> list[Array]:
    return [example.columns[name] for example in examples]


def _inputs(examples: Sequence[Example], padding: Padding) -> Batch:
    ids = _column(examples, "input_ids")
    length = padding.length([len(each) for each in ids])
    batch = {"input_ids": padding.pad(ids, padding.pad_token_id, length)}
    if "token_type_ids" in examples[0].columns:
        batch["token_type_ids"] = padding.pad(_column(examples, "token_type_ids"), padding.pad_token_type_id, length)
    padded = "attention_mask" in examples[0].columns
    masks = _column(examples, "attention_mask") if padded else [np.ones(len(each), np.int64) for each in ids]
    batch["attention_mask"] = padding.pad(masks, 0, length)
    return batch
