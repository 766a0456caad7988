"""perplexity: how well a decoder-only model foresees a text, which tells odd texts from those like its own.

Knows windows and sums; not logits. A text longer than the model's input is read in windows. Without a stride each
begins anew, as pieces of a long document do in packed training, so that with `append_eos` the loss over all rows is the
one that `kind: train` evaluates; with one, all but the first have that many tokens of context (Transformers' guide
"Perplexity of fixed-length models").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.text import CutText, TextEncoder, appends_eos, effective_max_length, text_of
from hfray.types import Array, Encoded, Item, NextTokens, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_NATS = 700.0  # e to the power of more is no number


class Perplexity(Task):
    name: ClassVar[str] = "perplexity"
    summary: ClassVar[str] = "how well a language model foresees a text: loss and perplexity"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    metric_names = ("loss", "perplexity")
    needs_references: ClassVar[bool] = False

    class Options(TaskOptions):
        name: Literal["perplexity"] = "perplexity"
        max_length: int | None = Field(default=None, ge=4)
        """Most tokens of one window; default: the model's own limit."""
        stride: int = Field(default=0, ge=0)
        """Tokens of context that a further window of a long text begins with, which are not counted again; 0: the
        window begins anew, and its first token is not counted."""
        append_eos: bool = False
        """Whether the end of the text, which is the tokenizer's end-of-sequence token, is to be foreseen too."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if model_info.is_encoder_decoder:
            raise SpecError(
                f"task perplexity needs a decoder-only model, and {model_info.name} ({model_info.model_type}) is an "
                "encoder-decoder"
            )
        self._encoder = TextEncoder(processor.tokenizer, None)
        self._settled = lru_cache(maxsize=64)(self._settle)
        self._settled(options)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = options or self.options
        limit, end = self._settled(options)
        encoded: list[Encoded | RowError] = []
        texts: list[tuple[int, str]] = []
        for index, row in enumerate(rows):
            try:
                texts.append((index, text_of(row, "text", options)))
                encoded.append(Encoded(()))
            except RowError as error:
                encoded.append(error)
        for (index, text), tokens in zip(texts, self._encoder.encode([text for _, text in texts]), strict=True):
            if isinstance(tokens, RowError):
                encoded[index] = tokens
                continue
            windows = _windows(np.concatenate([tokens.ids, end]), limit, options.stride)
            encoded[index] = (
                Encoded(windows, truncated=isinstance(text, CutText))
                if windows
                else RowError("text has one token, and nothing comes before it", type="TextTooShort")
            )
        return encoded

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        logprobs = [output["logprobs"] for output in outputs]
        tokens = sum(map(len, logprobs))
        loss = -math.fsum(float(each.sum(dtype=np.float64)) for each in logprobs) / tokens
        return {"loss": loss, "perplexity": _exp(loss), "tokens": tokens}

    def result_type(self) -> pa.DataType:
        """struct<loss: double, nats a token; perplexity: double, e to its power; tokens: int64, those foreseen>."""
        import pyarrow as pa

        return pa.struct([("loss", pa.float64()), ("perplexity", pa.float64()), ("tokens", pa.int64())])

    def summarize(self, result: Result) -> Summary:
        return Summary(score=result["loss"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """loss, nats a token over the tokens of all texts, and perplexity, e to its power."""
        tokens = sum(result["tokens"] for result in results)
        if not tokens:
            return {"loss": math.nan, "perplexity": math.nan}
        loss = math.fsum(result["loss"] * result["tokens"] for result in results) / tokens
        return {"loss": loss, "perplexity": _exp(loss)}

    def _settle(self, options: Any) -> tuple[int | None, Array]:
        """Most tokens of a window, and what is put after a text. Raises SpecError."""
        limit = effective_max_length(options, self.model_info.max_length)
        if limit is not None and options.stride >= limit - 1:
            raise SpecError(
                f"task.stride: {options.stride} leaves no step between windows of {limit} tokens; choose less than "
                f"{limit - 1}"
            )
        tokenizer = self.processor.tokenizer
        if options.append_eos and tokenizer.eos_token_id is None:
            raise SpecError(
                f"task.append_eos: the tokenizer of model {self.model_info.name} has no end-of-sequence token"
            )
        wanted = options.append_eos and not appends_eos(tokenizer)
        return limit, np.array([tokenizer.eos_token_id] if wanted else [], np.int64)


def _windows(ids: Array, limit: int | None, stride: int) -> tuple[Item, ...]:
    """Those in which something is foreseen."""
    size = len(ids) if limit is None else limit
    items: list[Item] = []
    for start in range(0, max(len(ids) - stride, 1), max(size - stride, 1)):
        window = ids[start : start + size]
        first = max(1, stride if start else 1)
        if len(window) > first:
            items.append(Item("text", {"input_ids": window}, NextTokens(first)))
    return tuple(items)


def _exp(nats: float) -> float:
    return math.exp(min(nats, _MOST_NATS))
