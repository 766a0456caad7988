"""The plain data that crosses the seams. Knows numpy and pydantic; not text, not tensors, not Ray.

A row becomes items (`Task.encode`), items become outputs (an engine), outputs become a result (`Task.decode`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

from hfray.errors import RowError

Row = Mapping[str, Any]
"""Column name to value: str, number, bytes, list, dict or None."""

Result = Any
"""What a task answers for one row; fits the task's `result_type()`."""

Array = np.ndarray[Any, Any]

Output = dict[str, Any]
"""What an engine returns for one item; its keys are named by the item's `Reduce`."""

Kind = Literal["text", "image", "seq2seq", "causal"]


class Strict(BaseModel):
    """Frozen configuration: unknown keys are errors, the docstring under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        validate_default=True,
    )


def _unicode(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Word = Annotated[str, BeforeValidator(_unicode)]
"""A string that came from outside: a lone surrogate in it must not cost the report of a finished job."""

Number = Annotated[float | None, BeforeValidator(_finite)]
"""A metric; NaN and infinity, which JSON does not have, become null."""


# What leaves the device. One class per shape of answer; an engine batches items of one class together.


@dataclass(frozen=True, slots=True)
class Logits:
    """-> {"logits": float32 [num_labels]} of a sequence or image classification head."""


@dataclass(frozen=True, slots=True)
class TokenLogits:
    """-> {"logits": float32 [num_tokens, num_labels]}."""


@dataclass(frozen=True, slots=True)
class Spans:
    """-> {"start": float32 [num_tokens], "end": float32 [num_tokens]} of a question-answering head."""


@dataclass(frozen=True, slots=True)
class Pool:
    """-> {"embedding": float32 [dim]}; with mode "none" {"embedding": float32 [num_tokens, dim]}.

    `skip` leading tokens (an instruction prompt that the model wants left out) do not enter the mean.
    The model's own dense layers (sentence-transformers) are applied after pooling, then `normalize`.
    """

    mode: Literal["mean", "cls", "max", "last", "mean_sqrt_len", "none"] = "mean"
    normalize: bool = False
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Features:
    """-> {"embedding": float32 [dim]}: the projected, L2-normalised features of a CLIP-like model's tower.

    An item of kind "text" takes the text tower, one of kind "image" the image tower.
    """


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Softmax over the vocabulary at some positions.

    -> {"ids": int64 [num_positions, k], "scores": float32 [num_positions, k]}, best first.
    With `targets`, only those token ids are ranked (k = min(top_k, len(targets))), by their full-softmax scores.
    """

    positions: tuple[int, ...]
    top_k: int
    targets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NextTokens:
    """How well a causal language model foresees each token from those before it.

    -> {"logprobs": float32 [num_tokens - first]}, in nats, of the item's tokens from number `first` on, which is at
    least 1: nothing foresees the token 0.
    """

    first: int = 1


@dataclass(frozen=True, slots=True)
class Generated:
    """-> {"tokens": int64 [num_new_tokens], "finish": "stop" | "length"}, without the prompt, without padding.

    `tokens` keeps a final end-of-sequence token if one was produced. Where `GenerationParams.logprobs` is k, also
    {"logprobs": float32 [num_new_tokens], "top_ids": int64 [num_new_tokens, k], "top_logprobs": float32 of that shape}:
    log-probabilities of the tokens, and of the k likeliest ones, best first, under the model alone (before penalties,
    temperature and what else shapes the draw).
    """


Reduce = Logits | TokenLogits | Spans | Pool | Features | MaskScores | NextTokens | Generated

StopMatcher = Callable[[Sequence[int]], bool]
"""New token ids so far -> whether a stop string is complete. Built by the task, which knows text."""


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How to continue one item. `temperature == 0` is greedy search (or beam search with `num_beams` > 1).

    `seed` fixes the sampled text of this item whatever else is in its batch (exact in float32).
    `forced_bos_token_id` is the target language of a multilingual translation model.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    eos_token_ids: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    seed: int = 0
    logprobs: int | None = None
    """How many of the likeliest tokens the output tells of, beside the one taken; None: no log-probabilities."""
    stop: StopMatcher | None = field(default=None, compare=False)

    @property
    def deterministic(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class Item:
    """One model input.

    inputs: text: "input_ids", optional "token_type_ids", int64 [num_tokens], unpadded, special tokens included
            (no attention mask: every token counts); image: "pixel_values" float32 [channels, height, width].
    reuse:  "job" keeps the output of equal items for the life of the engine (label texts), "batch" computes
            equal items once within one call.
    """

    kind: Kind
    inputs: Mapping[str, Array]
    reduce: Reduce
    generation: GenerationParams | None = None
    adapter: str | None = None
    cache_salt: str = ""
    reuse: Literal["batch", "job"] = "batch"

    @property
    def num_tokens(self) -> int:
        """Tokens for text, pixels-independent 1 for an image."""
        ids = self.inputs.get("input_ids")
        return 1 if ids is None else len(ids)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row, ready for the engine. `carry` is what decoding needs back; it goes around the engine."""

    items: tuple[Item, ...]
    carry: Any = None
    truncated: bool = False
    """Whether text of the row is in none of the items, because it was longer than `max_length` or `max_chars`."""
    own_places: tuple[tuple[int, int], ...] | None = None
    """Of a row that gives its own seed, (place, sample) of each item in its request, by which an endpoint would seed
    it; the row's place in the job then means nothing."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of different lengths in one array: list i is `values[offsets[i] : offsets[i + 1]]`.

    values: [total], or [total, width] for lists of tuples; offsets: int64 [num_lists + 1], from 0.
    """

    values: Array
    offsets: Array

    @classmethod
    def of(cls, lists: Sequence[Any], dtype: Any = np.int32) -> Ragged:
        """From separate lists or arrays."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(each) for each in lists], out=offsets[1:])
        values = np.concatenate([np.asarray(each, dtype) for each in lists]) if lists else np.zeros(0, dtype)
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Array:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)


Column = Ragged | Array | list[Any]
"""One column of training examples: token lists, one number each, or one plain value (text, lists of text) each."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What some rows become for training, in columns; every column has one entry per example.

    rows:      int64 [num_examples], ascending: the row (its number among those given) that an example was made from.
               A long row may make several, a failed one makes none.
    columns:   by name, all of the same length, in the order of the schema.
    errors:    row number -> why it made no example.
    truncated: numbers of the rows that lost text.
    """

    rows: Array
    columns: Mapping[str, Column]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    truncated: tuple[int, ...] = ()
