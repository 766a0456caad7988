"""text-generation: a prompt, or the messages of a chat, continued by a decoder-only model.

Knows which options a row has and how long a prompt may be; the rest is `generation`, for chats `chat_prompts`, and what
an answer is made of `text_results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from hfray.errors import RowError, SpecError
from hfray.tasks.answers import REASONING_MARKS
from hfray.tasks.base import ModelInfo, Processor, Summary
from hfray.tasks.chat_prompts import ChatPrompts, Prompt, ToolFormatName
from hfray.tasks.generation import GenerationTask, exact_match
from hfray.tasks.generation_options import GenerationOptions, generation_params
from hfray.tasks.streaming import StreamDecoder, special_tokens
from hfray.tasks.text import TextEncoder, text_of
from hfray.tasks.text_results import AnswerCarry, AnswerStream, detail_type, detailed, token_score
from hfray.types import Array, Encoded, Generated, GenerationParams, Item, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

RowOption = Literal[
    "max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "no_repeat_ngram_size", "num_return_sequences", "stop", "stop_token_ids", "seed", "logprobs",
]  # fmt: skip


class TextGeneration(GenerationTask):
    name: ClassVar[str] = "text-generation"
    summary: ClassVar[str] = "a prompt or a chat continued by a language model"
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    columns: ClassVar[tuple[str, ...]] = ("prompt",)
    metric_names = ("exact_match",)
    optional_columns: ClassVar[tuple[str, ...]] = ("messages", "tools")
    training_mode: ClassVar[str | None] = "packed"

    class Options(GenerationOptions):
        name: Literal["text-generation"] = "text-generation"
        input: Literal["prompt", "messages"] = "prompt"
        """Which column is continued: `prompt`, a text as it is, or `messages`, a list of {role, content} that the
        model's chat template turns into a prompt."""
        truncation: Literal["error", "left"] = "error"
        """A prompt that leaves no room for `max_new_tokens`: its row fails, or it loses its beginning."""
        return_full_text: bool = False
        """Whether the result begins with the prompt."""
        continue_final_message: bool = False
        """messages: a last message of the assistant is the beginning of the answer, which the model goes on with; the
        result is what comes after it."""
        details: bool = False
        """The result is an object: text, finish (stop, length, tool_calls), reasoning, tool_calls, prompt_tokens,
        completion_tokens, logprobs. Reasoning and tool calls are then taken out of a chat's text."""
        logprobs: int | None = Field(default=None, ge=0, le=20)
        """How many of the likeliest tokens are told at each place, with their log-probabilities under the model alone,
        beside the one taken; 0: that one only. The result is then an object, as with `details`."""
        tool_format: ToolFormatName = "auto"
        """How the model writes calls of a row's `tools` (JSON schemas, passed through its template); `auto` goes by the
        template, `none` leaves them in the text."""
        row_options: tuple[RowOption, ...] = ()
        """Options that a row may set for itself, in a column of the same name; where it is null the job's count."""

        @model_validator(mode="after")
        def _check_full_text(self) -> Self:
            if self.return_full_text and self.input == "messages":
                raise ValueError("return_full_text needs input: prompt; a chat has no full text")
            if self.continue_final_message and self.input == "prompt":
                raise ValueError("continue_final_message needs input: messages; a prompt is always continued")
            return self

        @property
        def is_detailed(self) -> bool:
            return self.details or self.logprobs is not None or "logprobs" in self.row_options

        @property
        def is_list(self) -> bool:
            return self.num_return_sequences > 1 or "num_return_sequences" in self.row_options

    @classmethod
    def required_columns(cls, options: Any) -> tuple[str, ...]:
        return (options.input, *options.row_options)

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if model_info.is_encoder_decoder:
            raise SpecError(
                f"task text-generation needs a decoder-only model, and {model_info.name} ({model_info.model_type}) is "
                "an encoder-decoder; use text2text-generation, summarization or translation with it"
            )
        tokenizer = processor.tokenizer
        self._settled = lru_cache(maxsize=1024)(self._settle)
        self._settled(options)
        self._plain = TextEncoder(tokenizer, None)
        self._rendered = TextEncoder(tokenizer, None, add_special_tokens=False)
        self._chats = ChatPrompts(tokenizer) if getattr(tokenizer, "chat_template", None) else None
        self._tool_format = None if self._chats is None else self._chats.tool_format(options.tool_format)
        marks = [mark for pair in REASONING_MARKS for mark in pair]
        marks += [] if self._tool_format is None else self._tool_format.specials
        self._keep = special_tokens(tokenizer, marks) if options.input == "messages" else {}

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = self.options if options is None else options
        self._settled(options)
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        asked: list[tuple[int, Prompt, Any]] = []
        for index, row in enumerate(rows):
            try:
                own = self._options_of(row, options)
                asked.append((index, self._prompt(row, own), own))
            except RowError as error:
                encoded[index] = error
        encoder = self._plain if options.input == "prompt" else self._rendered
        found = encoder.encode([prompt.text for _, prompt, _ in asked])
        for (index, prompt, own), tokens in zip(asked, found, strict=True):
            try:
                if isinstance(tokens, RowError):
                    raise tokens
                params, limit = self._settled(own)
                ids = self._fit(tokens.ids, limit, params, own)
                cut = tokens.truncated or len(ids) < len(tokens.ids)
                item = self._item(ids, params, own, prompt, truncated=cut)
                if "seed" in options.row_options and rows[index].get("seed") is not None:
                    item = replace(item, own_places=tuple((0, sample) for sample in range(len(item.items))))
                encoded[index] = item
            except RowError as error:
                encoded[index] = error
        return [each for each in encoded if each is not None]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        if not carry.detailed:
            return super().decode(outputs, carry)
        found = [detailed(self.processor.tokenizer, each, carry, self._keep) for each in outputs]
        return found if carry.many else found[0]

    def result_type(self) -> pa.DataType:
        """string, or an object (`text_results.detail_type`); a list of them where a row may have several."""
        import pyarrow as pa

        one = detail_type() if self.options.is_detailed else pa.string()
        return pa.list_(one) if self.options.is_list else one

    def stream_decoder(self, carry: Any) -> StreamDecoder:
        """Decodes one sequence's tokens while they come; without `carry.before`."""
        return StreamDecoder(self.processor.tokenizer, carry.stop, self._keep if carry.detailed else {})

    def answer_stream(self, carry: AnswerCarry) -> AnswerStream:
        """The same, taken apart into what is said, thought and called."""
        decoder = StreamDecoder(self.processor.tokenizer, carry.stop, self._keep)
        return AnswerStream(decoder, carry.parser())

    def token_score(self, token: int, logprob: float, top: Iterable[tuple[int, float]]) -> dict[str, Any]:
        """One token of a stream as an entry of a detailed result's `logprobs`."""
        return token_score(self.processor.tokenizer, token, logprob, top, {})

    def summarize(self, result: Result) -> Summary:
        """The length in characters, of several texts the mean; of detailed results why the first one ends."""
        found = result if isinstance(result, list) else [result]
        if not isinstance(found[0], Mapping):
            return super().summarize(result)
        return Summary(label=found[0]["finish"], score=sum(len(each["text"]) for each in found) / len(found))

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """exact_match: share of texts equal to a reference, white space at the ends apart."""
        firsts = [each[0] if isinstance(each, list) else each for each in results]
        texts = [each["text"] if isinstance(each, Mapping) else each for each in firsts]
        return {"exact_match": exact_match(texts, references)}

    @property
    def chats(self) -> ChatPrompts | None:
        """What turns messages into prompts, if the model can."""
        return self._chats

    def _settle(self, options: Any) -> tuple[GenerationParams, int | None]:
        """The parameters, and the most tokens of a prompt."""
        if options.input == "messages" and not getattr(self.processor.tokenizer, "chat_template", None):
            raise SpecError(
                f"{self.model_info.name} has no chat template, so task.input: messages cannot be used with it; "
                "choose an instruction-tuned model, or give whole prompts with input: prompt"
            )
        params = generation_params(options, self.model_info, self.processor.tokenizer)
        limits = [options.max_length] if options.max_length is not None else []
        if self.model_info.max_length is not None:
            limits.append(self.model_info.max_length - params.max_new_tokens)
        return params, min(limits, default=None)

    def _options_of(self, row: Row, options: Any) -> Any:
        """With what the row sets for itself. Raises RowError BadOption."""
        own = {name: row[name] for name in options.row_options if row.get(name) is not None}
        if not own:
            return options
        try:
            found = type(options).model_validate({**options.model_dump(), **own})
            self._settled(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RowError(f"{where}{': ' if where else ''}{first['msg']}", type="BadOption") from None
        except SpecError as error:
            raise RowError(str(error), type="BadOption") from None
        return found

    def _prompt(self, row: Row, options: Any) -> Prompt:
        if options.input == "prompt" or self._chats is None:
            return Prompt(text_of(row, "prompt", options))
        return self._chats.prompt(row, options)

    def _item(self, ids: Array, params: GenerationParams, options: Any, prompt: Prompt, *, truncated: bool) -> Encoded:
        """One item per sequence to return; the predictor gives each its own seed."""
        carry = AnswerCarry(
            stop=options.stop,
            many=options.is_list,
            before=prompt.text if options.return_full_text else "",
            detailed=options.is_detailed,
            num_prompt_tokens=len(ids),
            eos_token_ids=params.eos_token_ids,
            is_chat=options.input == "messages",
            tools=self._tool_format if prompt.has_tools else None,
            texts=prompt.texts,
            in_reasoning=prompt.in_reasoning,
        )
        item = Item(kind="causal", inputs={"input_ids": ids}, reduce=Generated(), generation=params)
        return Encoded((item,) * options.num_return_sequences, carry, truncated)

    def _fit(self, ids: Array, limit: int | None, params: GenerationParams, options: Any) -> Array:
        if not len(ids):
            raise RowError("the prompt has no tokens", type="EmptyText")
        if limit is None or len(ids) <= limit:
            return ids
        if options.truncation == "error":
            raise RowError(
                f"the prompt has {len(ids):,} tokens; with max_new_tokens {params.max_new_tokens:,} there is room for "
                f"{limit:,} (task.truncation: left drops its beginning)",
                type="PromptTooLong",
            )
        # Models trained with a first token need it whatever else is lost.
        head = ids[:1] if ids[0] == self.processor.tokenizer.bos_token_id and limit > 1 else ids[:0]
        return np.concatenate([head, ids[len(ids) - limit + len(head) :]])
