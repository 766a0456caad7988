"""What the generating tasks share: items per sequence, tokens back to text. How they are asked: `generation_options`.

Knows text and tokenizers; not how tokens are produced.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task
from hfray.tasks.generation_options import GenerationOptions
from hfray.tasks.streaming import StreamDecoder, cut_at_stop, decode_text
from hfray.tasks.text import TextEncoder, Tokens, effective_max_length, text_of
from hfray.types import Array, Encoded, Generated, GenerationParams, Item, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TextCarry:
    """What decoding a row's sequences needs back."""

    stop: tuple[str, ...]
    many: bool
    """Whether the result is a list."""
    before: str = ""
    """Text that the result begins with."""


class GenerationTask(Task):
    """The half that all generating tasks have in common: results are texts."""

    mode: ClassVar[Literal["forward", "generate"]] = "generate"

    def decode(self, outputs: Sequence[Output], carry: TextCarry) -> Result:
        tokenizer = self.processor.tokenizer
        texts = [carry.before + cut_at_stop(decode_text(tokenizer, each["tokens"]), carry.stop) for each in outputs]
        return texts if carry.many else texts[0]

    def stream_decoder(self, carry: TextCarry) -> StreamDecoder:
        """Decodes one sequence's tokens while they come; without `carry.before`."""
        return StreamDecoder(self.processor.tokenizer, carry.stop)

    def result_type(self) -> pa.DataType:
        """string; list<string> with `num_return_sequences` above 1."""
        import pyarrow as pa

        return pa.list_(pa.string()) if self.options.num_return_sequences > 1 else pa.string()

    def summarize(self, result: Result) -> Summary:
        """The length in characters, of several texts the mean."""
        texts = [result] if isinstance(result, str) else result
        return Summary(score=sum(map(len, texts)) / len(texts))

    def _encoded(
        self,
        ids: Array,
        params: GenerationParams,
        options: GenerationOptions,
        *,
        truncated: bool,
        before: str = "",
    ) -> Encoded:
        """One item per sequence to return; the predictor gives each its own seed."""
        kind: Literal["seq2seq", "causal"] = "seq2seq" if self.model_info.is_encoder_decoder else "causal"
        item = Item(kind=kind, inputs={"input_ids": ids}, reduce=Generated(), generation=params)
        num = options.num_return_sequences
        return Encoded((item,) * num, TextCarry(stop=options.stop, many=num > 1, before=before), truncated)


class Seq2SeqTask(GenerationTask):
    """A text in, a text out, through an encoder-decoder model. A task adds its prefix and its parameters."""

    auto_model: ClassVar[str] = "AutoModelForSeq2SeqLM"
    columns: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if not model_info.is_encoder_decoder:
            raise SpecError(
                f"task {self.name} needs an encoder-decoder model (T5, BART, Marian, ...), and {model_info.name} is "
                f"{model_info.model_type}; use text-generation with it"
            )
        self._encoder = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))
        self.settle(options)

    @abstractmethod
    def settle(self, options: Any) -> tuple[str, GenerationParams]:
        """The prefix of every text, and the parameters. Raises SpecError for options that the model cannot do."""

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = self.options if options is None else options
        prefix, params = self.settle(options)
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        texts: list[tuple[int, str]] = []
        for index, row in enumerate(rows):
            try:
                texts.append((index, prefix + text_of(row, "text", options)))
            except RowError as error:
                encoded[index] = error
        for (index, _), tokens in zip(texts, self.tokenize([text for _, text in texts], options), strict=True):
            encoded[index] = (
                tokens
                if isinstance(tokens, RowError)
                else self._encoded(tokens.ids, params, options, truncated=tokens.truncated)
            )
        return [each for each in encoded if each is not None]

    def tokenize(self, texts: Sequence[str], options: Any) -> list[Tokens | RowError]:
        """One entry per text, special tokens included, cut to the model's limit."""
        return self._encoder(effective_max_length(options, self.model_info.max_length)).encode(texts)


def first_texts(results: Sequence[Result]) -> list[str]:
    """One text per result for metrics: of several sequences the first."""
    return [result if isinstance(result, str) else result[0] for result in results]


def text_references(references: Sequence[Any]) -> list[list[str]]:
    """Reference texts, one or several per result. Raises DataError naming the first value that is neither."""
    checked = []
    for position, value in enumerate(references):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"reference {position} is {value!r:.80}; this metric needs a text or a list of texts")
        checked.append(list(texts))
    return checked


def exact_match(results: Sequence[Result], references: Sequence[Any]) -> float:
    """Share of results equal to one of their references, white space at the ends apart."""
    pairs = list(zip(first_texts(results), text_references(references), strict=True))
    hits = sum(text.strip() in {reference.strip() for reference in accepted} for text, accepted in pairs)
    return hits / len(pairs) if pairs else float("nan")
