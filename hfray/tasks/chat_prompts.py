"""Chats to prompts, by the model's own template, and what the template says of the answers. Knows templates (run by
Transformers, in its sandbox); not tokens, not options beyond a chat's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hfray.errors import HfrayError, RowError
from hfray.tasks.answers import REASONING_MARKS
from hfray.tasks.messages import Message, check_messages, check_tools
from hfray.tasks.text import CutText
from hfray.tasks.tool_calls import FORMATS, Format, Texts, ToolFormat, detect, text_parameters
from hfray.types import Row

Render = Callable[[str, list[Message], "list[Any] | None", bool], str]
"""(template, messages, tools, whether the last message is the beginning of the answer) to the prompt."""
ToolFormatName = Literal["auto", "none"] | Format


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model continues; how its answer is to be read."""

    text: str
    has_tools: bool = False
    texts: Texts = frozenset()
    """Which arguments of their calls are texts."""
    in_reasoning: bool = False
    """Whether the answer begins inside of its reasoning."""


class ChatPrompts:
    """Of one tokenizer with a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def special_tokens(self) -> Mapping[str, Any]:
        """What templates may name."""
        tokens: Mapping[str, Any] = self._tokenizer.special_tokens_map
        return tokens

    def prompt(self, row: Row, options: Any, render: Render | None = None) -> Prompt:
        """The columns `messages` and `tools`. Raises RowError: what `check_messages` and `check_tools` raise,
        ChatTemplate for what the template refuses, NoTools for tools that it would not show.

        render: in place of the tokenizer's own, in this process. An endpoint renders before it encodes: `messages` is
        then the prompt already, or the error.
        """
        given = row.get("messages")
        if isinstance(given, Prompt):
            return given
        if isinstance(given, RowError):
            raise given
        if "messages" not in row:
            raise RowError("column 'messages' is missing", type="MissingColumn")
        messages, cut = check_messages(row["messages"], "messages", options)
        tools = check_tools(row.get("tools"))
        prefilled = options.continue_final_message and messages[-1]["role"] == "assistant"
        try:
            template = self._tokenizer.get_chat_template(None, tools)
            if tools is not None and "tools" not in template:
                raise RowError(
                    "the row has tools, and the model's chat template has no place for them; choose a model that was "
                    "trained to call tools",
                    type="NoTools",
                )
            text = (render or self._render)(
                template, [_with_objects(message) for message in messages], tools, prefilled
            )
        except HfrayError:
            raise
        except Exception as error:  # a template is the model author's program: it raises what it likes
            reason = " ".join(str(error).split())[:300]
            raise RowError(f"the chat template refused the messages: {reason}", type="ChatTemplate") from None
        begun = messages[-1].get("content", "") if prefilled else text.rstrip()
        return Prompt(
            CutText(text) if cut else str(text),
            tools is not None,
            text_parameters(tools or ()),
            _is_open(begun, at_end=not prefilled),
        )

    def _render(self, template: str, messages: list[Message], tools: list[Any] | None, prefilled: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=template,
            add_generation_prompt=not prefilled,
            continue_final_message=prefilled,
            tokenize=False,
        )
        return text

    def tool_format(self, name: ToolFormatName) -> ToolFormat | None:
        """How the model writes calls; `auto` asks its template. None: calls are not taken out of the answer."""
        found: Format | None = None if name == "none" else name if name != "auto" else detect(self._template_text())
        return None if found is None else FORMATS[found]

    def _template_text(self) -> str:
        template = self._tokenizer.chat_template
        return "\n".join(template.values()) if isinstance(template, Mapping) else str(template)


def _is_open(text: str, *, at_end: bool) -> bool:
    """Whether reasoning is begun in a text and not ended; at_end: by its very end."""
    if at_end:
        return text.endswith(tuple(opening for opening, _ in REASONING_MARKS))
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in REASONING_MARKS)


def _with_objects(message: Message) -> Message:
    """With the arguments of its tool calls as objects, which templates expect; OpenAI's form has them as JSON text."""
    calls = message.get("tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return message
    return {**message, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call
