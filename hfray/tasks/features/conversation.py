"""Conversations through a chat template, and which of the characters a model learns to write.

Knows messages and templates (run by Transformers, in its sandbox); not tokens, not options of a mode.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hfray.errors import RowError, SpecError
from hfray.tasks.messages import Message

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
