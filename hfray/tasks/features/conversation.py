"""Conversations through a chat template, and which of the characters a model learns to write.

Knows messages and templates (run by Transformers, in its sandbox); not tokens, not options of a mode.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hfray.errors import RowError, SpecError
from hfray.tasks.text import any_cut, check_text
from hfray.tasks.text_generation import ROLES

Message = dict[str, Any]
Loss = Literal["assistant", "last", "all"]
Span = tuple[int, int]

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of a conversation, and the character spans [start, end) that a loss is taken of."""

    text: str
    spans: tuple[Span, ...]


class ChatTemplate:
    """A tokenizer's own chat template, or one given in its place."""

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        """Raises SpecError: there is no template, or it is not one."""
        from jinja2 import TemplateSyntaxError

        if template is None and not getattr(tokenizer, "chat_template", None):
            raise SpecError(
                "mode chat: the tokenizer has no chat template, which messages need; choose an instruction-tuned "
                "model's tokenizer, or give a Jinja template with chat_template"
            )
        self._tokenizer = tokenizer
        self._template = template
        # What Transformers adds at the end of a conversation, and what ends a turn, are among these.
        self._eos: str = tokenizer.eos_token or ""
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        self._markers = tuple({*tokenizer.all_special_tokens, *(token.content for token in added)} - {""})
        self._tracker = threading.Lock()
        try:
            self._run([{"role": "user", "content": "a"}], None)
        except TemplateSyntaxError as error:
            raise SpecError(f"mode chat: chat_template, line {error.lineno}: {error.message}") from None
        except Exception:  # of these messages; it may take a row's
            pass

    def render(self, messages: Sequence[Message], tools: Any, loss: Loss, *, num_prompt_messages: int = 0) -> Rendered:
        """A whole conversation; the spans are of assistant turns after the prompt messages.

        assistant: each of them, from the end of the role header to its end-of-turn token; last: the last one; all:
        the whole text. A template with `{% generation %}` says itself what an assistant wrote. With another each turn
        is what the text gains by it: RowError ChatTemplate where the text does not begin with what the conversation
        was before, because the template rewrites it. Raises RowError: ChatTemplate, NothingToLearn.
        """
        if loss == "all":
            text, _ = self._checked(messages, tools)
            return Rendered(text, ((0, len(text)),))
        turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        turns = [place for place in turns if place >= num_prompt_messages]
        if not turns:
            raise RowError("no message with the role assistant to learn", type="NothingToLearn")
        if loss == "last":
            turns = turns[-1:]
        template = self._tokenizer.get_chat_template(self._template, tools)
        if not _GENERATION_TAG.search(template):
            text, _ = self._checked(messages, tools)
            return Rendered(text, tuple(self._turn(text, messages, tools, place) for place in turns))
        with self._tracker:  # the compiled template keeps the marks of one rendering at a time
            text, marked = self._checked(messages, tools, marks=True)
        if num_prompt_messages:
            start = self.prefix_chars(text, messages, tools, num_prompt_messages)
            marked = [span for span in marked if span[1] > start]
        return Rendered(text, tuple(marked[-1:] if loss == "last" else marked))

    def prefix_chars(self, text: str, messages: Sequence[Message], tools: Any, place: int) -> int:
        """How many characters of a conversation's text come before the message at `place`, the role header of an
        assistant's included. Raises RowError ChatTemplate if the text does not begin with these."""
        if not place:
            raise RowError(
                "the conversation begins with the assistant, so what comes before its turn cannot be told; begin with "
                "another message, or use loss: all, or a template with {% generation %}",
                type="ChatTemplate",
            )
        if messages[place]["role"] == "assistant":
            return self._common(text, messages[:place], tools, place, header=True)
        return self._common(text, messages[:place], tools, place)

    def _turn(self, text: str, messages: Sequence[Message], tools: Any, place: int) -> Span:
        start = self.prefix_chars(text, messages, tools, place)
        end = len(text)
        if place + 1 < len(messages):
            end = self._common(text, messages[: place + 1], tools, place)
        # White space that follows the token that ends a turn belongs to the template, not to the turn.
        stripped = text[start:end].rstrip()
        if stripped.endswith(self._markers):
            end = start + len(stripped)
        return start, end

    def _common(self, text: str, messages: Sequence[Message], tools: Any, place: int, *, header: bool = False) -> int:
        before, _ = self._checked(messages, tools, header=header)
        # Some templates (Phi-3's) end every conversation in eos, which moves on when it does.
        for prefix in (before, before.removesuffix(self._eos)):
            if text.startswith(prefix):
                return len(prefix)
        raise RowError(
            f"the chat template rewrites what came before when messages follow (seen at messages[{place}]), so the "
            "assistant's part of the text cannot be told; use loss: last or all, or a template with {% generation %}",
            type="ChatTemplate",
        )

    def _checked(
        self, messages: Sequence[Message], tools: Any, *, header: bool = False, marks: bool = False
    ) -> tuple[str, list[Span]]:
        try:
            return self._run(messages, tools, header=header, marks=marks)
        except Exception as error:  # a template is the model author's program: it raises what it likes
            reason = " ".join(str(error).split())[:300]
            raise RowError(f"the chat template refused the messages: {reason}", type="ChatTemplate") from None

    def _run(
        self, messages: Sequence[Message], tools: Any, *, header: bool = False, marks: bool = False
    ) -> tuple[str, list[Span]]:
        # What `apply_chat_template` calls, which gives marks of characters; that gives them of tokens, a row at a time.
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, spans = render_jinja_template(
            conversations=[list(messages)],
            tools=tools,
            chat_template=self._tokenizer.get_chat_template(self._template, tools),
            return_assistant_tokens_mask=marks,
            add_generation_prompt=header,
            **self._tokenizer.special_tokens_map,
        )
        return str(texts[0]), [tuple(span) for span in spans[0]] if marks else []


def check_messages(value: Any, what: str, options: Any) -> tuple[list[Message], bool]:
    """A list of {role, content}, checked, and whether `max_chars` cut a content. Other keys are kept for the template.

    Keys that are null are left out: Arrow gives every message all keys of any. Raises RowError: NullText, BadMessages,
    EmptyText, TextTooLong, and what `check_text` raises for a content.
    """
    if value is None:
        raise RowError(f"{what} is null", type="NullText")
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
        raise RowError(f"{what} is {type(value).__name__}, not a list of messages", type="BadMessages")
    checked: list[Message] = []
    for position, message in enumerate(value):
        where = f"{what}[{position}]"
        if not isinstance(message, Mapping):
            raise RowError(f"{where} is {type(message).__name__}, not {{role, content}}", type="BadMessages")
        message = _without_nulls(message)
        if message.get("role") not in ROLES:
            raise RowError(
                f"{where}.role is {message.get('role')!r:.80}, not one of {', '.join(ROLES)}", type="BadMessages"
            )
        if "content" in message or not message.get("tool_calls"):
            message["content"] = check_text(message.get("content"), f"{where}.content", options, allow_empty=True)
        checked.append(message)
    contents = [message.get("content", "") for message in checked]
    if not any(text.strip() for text in contents) and not any(message.get("tool_calls") for message in checked):
        raise RowError(f"{what} has no content", type="EmptyText")
    if (total := sum(map(len, contents))) > options.max_chars:
        raise RowError(
            f"{what} has {total:,} characters together, over max_chars {options.max_chars:,}", type="TextTooLong"
        )
    return checked, any_cut(contents)


def check_tools(value: Any) -> list[Any] | None:
    """The tools of a row: a list of JSON schemas, or the JSON text of one; None where there are none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"tools is not JSON: {error}", type="BadTools") from None
    value = _without_nulls(value)
    if not value and (value is None or isinstance(value, list)):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError("tools is not a list of JSON schemas", type="BadTools")
    return value


def _without_nulls(value: Any) -> Any:
    """A copy in plain lists and dicts, without keys whose value is null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple | np.ndarray):
        return [_without_nulls(each) for each in value]
    return value
