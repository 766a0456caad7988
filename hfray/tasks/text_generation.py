"""text-generation: a prompt, or the messages of a chat, continued by a decoder-only model.

Knows chat templates (the tokenizer's own, through Transformers) and how long a prompt may be; the rest is
`generation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.generation import GenerationOptions, GenerationTask, exact_match, generation_params
from hfray.tasks.text import CutText, TextEncoder, any_cut, check_text, text_of
from hfray.types import Array, Encoded, GenerationParams, Result, Row

ROLES = ("system", "developer", "user", "assistant", "tool")


class TextGeneration(GenerationTask):
    name: ClassVar[str] = "text-generation"
    summary: ClassVar[str] = "a prompt or a chat continued by a language model"
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    columns: ClassVar[tuple[str, ...]] = ("prompt",)
    optional_columns: ClassVar[tuple[str, ...]] = ("messages",)
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

        @model_validator(mode="after")
        def _check_full_text(self) -> Self:
            if self.return_full_text and self.input == "messages":
                raise ValueError("return_full_text needs input: prompt; a chat has no full text")
            return self

    @classmethod
    def required_columns(cls, options: Any) -> tuple[str, ...]:
        return (options.input,)

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if model_info.is_encoder_decoder:
            raise SpecError(
                f"task text-generation needs a decoder-only model, and {model_info.name} ({model_info.model_type}) is "
                "an encoder-decoder; use text2text-generation, summarization or translation with it"
            )
        self._settle(options)
        self._plain = TextEncoder(processor.tokenizer, None)
        self._rendered = TextEncoder(processor.tokenizer, None, add_special_tokens=False)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = self.options if options is None else options
        params, limit = self._settle(options)
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        texts: list[tuple[int, str]] = []
        for index, row in enumerate(rows):
            try:
                texts.append((index, self._prompt(row, options)))
            except RowError as error:
                encoded[index] = error
        encoder = self._plain if options.input == "prompt" else self._rendered
        for (index, text), tokens in zip(texts, encoder.encode([text for _, text in texts]), strict=True):
            try:
                if isinstance(tokens, RowError):
                    raise tokens
                ids = self._fit(tokens.ids, limit, params, options)
                encoded[index] = self._encoded(
                    ids,
                    params,
                    options,
                    truncated=tokens.truncated or len(ids) < len(tokens.ids),
                    before=text if options.return_full_text else "",
                )
            except RowError as error:
                encoded[index] = error
        return [each for each in encoded if each is not None]

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """exact_match: share of texts equal to a reference, white space at the ends apart."""
        return {"exact_match": exact_match(results, references)}

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

    def _prompt(self, row: Row, options: Any) -> str:
        if options.input == "prompt":
            return text_of(row, "prompt", options)
        messages = chat_messages(row, options)
        try:
            prompt = self.processor.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is the model author's program: it raises what it likes
            reason = " ".join(str(error).split())[:300]
            raise RowError(f"the chat template refused the messages: {reason}", type="ChatTemplate") from None
        return CutText(prompt) if any_cut(message["content"] for message in messages) else str(prompt)

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


def chat_messages(row: Row, options: GenerationOptions) -> list[dict[str, str]]:
    """The column `messages`, checked: role and content of each; other keys are left out.

    Raises RowError: MissingColumn, NullText, BadMessages, and what `check_text` raises for a content.
    """
    if "messages" not in row:
        raise RowError("column 'messages' is missing", type="MissingColumn")
    messages = row["messages"]
    if messages is None:
        raise RowError("messages is null", type="NullText")
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence | np.ndarray):
        raise RowError(f"messages is {type(messages).__name__}, not a list of messages", type="BadMessages")
    checked: list[dict[str, str]] = []
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, Mapping):
            raise RowError(f"{where} is {type(message).__name__}, not {{role, content}}", type="BadMessages")
        role = message.get("role")
        if role not in ROLES:
            raise RowError(f"{where}.role is {role!r:.80}, not one of {', '.join(ROLES)}", type="BadMessages")
        content = check_text(message.get("content"), f"{where}.content", options, allow_empty=True)
        checked.append({"role": role, "content": content})
    if not any(message["content"].strip() for message in checked):
        raise RowError("messages has no content", type="EmptyText")
    total = sum(len(message["content"]) for message in checked)
    if total > options.max_chars:
        raise RowError(
            f"messages has {total:,} characters together, over max_chars {options.max_chars:,}", type="TextTooLong"
        )
    return checked
