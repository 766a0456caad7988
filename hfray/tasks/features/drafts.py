"""Rows of conversations, prompts with completions and preference pairs, as texts with the part that is to be learned.

Knows which columns make which form of example; `conversation` knows templates. Not tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hfray.errors import RowError, SpecError
from hfray.tasks.features.conversation import ChatTemplate, Rendered
from hfray.tasks.messages import check_messages, check_tools
from hfray.tasks.text import any_cut, check_text
from hfray.types import Row

Form = Literal["messages", "completion", "preference"]
FORMS: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "preference": ("chosen", "rejected"),
}
"""The columns that each form must have."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One text before it is tokenised. `plain`: no template made it, so special tokens are added around it."""

    rendered: Rendered
    plain: bool
    truncated: bool
    """Whether `max_chars` cut it."""


def form_of(options: Any, present: Collection[str]) -> Form:
    """The form that the options name, or that the columns have. Raises SpecError: they have none, or several."""
    if options.form != "auto":
        return options.form  # type: ignore[no-any-return]  # options of any mode
    fitting = [form for form, columns in FORMS.items() if all(column in present for column in columns)]
    if len(fitting) == 1:
        return fitting[0]
    choices = "; ".join(f"{form}: {' and '.join(columns)}" for form, columns in FORMS.items())
    if fitting:
        raise SpecError(f"mode chat: the columns fit {' and '.join(fitting)}; say which with form ({choices})")
    raise SpecError(
        f"mode chat: no form fits the columns {', '.join(sorted(present)) or '(none)'}; a form needs these "
        f"({choices}); rename columns with input.columns"
    )


class Drafts:
    """Makes the drafts of a row: one, or the two of a preference pair."""

    def __init__(self, options: Any, form: Form, template: ChatTemplate | None) -> None:
        self._options = options
        self._template = template
        self._drafts = {"messages": self._chat, "completion": self._completion, "preference": self._preference}[form]

    def of(self, row: Row) -> list[Draft]:
        """Raises RowError."""
        return self._drafts(row)

    def _chat(self, row: Row) -> list[Draft]:
        messages, cut = check_messages(_value(row, "messages"), "messages", self._options)
        rendered = self._needed_template().render(messages, check_tools(row.get("tools")), self._options.loss)
        return [Draft(rendered, plain=False, truncated=cut)]

    def _completion(self, row: Row) -> list[Draft]:
        first, second = _value(row, "prompt"), _value(row, "completion")
        if isinstance(first, str) or isinstance(second, str):
            prompt, completion = (
                check_text(value, name, self._options) for value, name in ((first, "prompt"), (second, "completion"))
            )
            text = f"{prompt}{completion}"
            span = (0 if self._options.loss == "all" else len(prompt), len(text))
            return [Draft(Rendered(text, (span,)), plain=True, truncated=any_cut((prompt, completion)))]
        messages, prompt_cut = check_messages(first, "prompt", self._options)
        answer, cut = check_messages(second, "completion", self._options)
        rendered = self._needed_template().render(
            messages + answer, check_tools(row.get("tools")), self._options.loss, num_prompt_messages=len(messages)
        )
        return [Draft(rendered, plain=False, truncated=cut or prompt_cut)]

    def _preference(self, row: Row) -> list[Draft]:
        """Two drafts, whose span is what follows the prompt.

        Without a column `prompt` it is what both begin with, as TRL's `extract_prompt` has it: of texts the common
        characters without a space at their end, of messages the common messages.
        """
        answers = [_value(row, name) for name in ("chosen", "rejected")]
        if any(isinstance(answer, str) for answer in answers):
            chosen, rejected = (
                check_text(answer, name, self._options)
                for answer, name in zip(answers, ("chosen", "rejected"), strict=True)
            )
            if "prompt" in row:
                prompt = check_text(row["prompt"], "prompt", self._options)
                texts, start = [f"{prompt}{chosen}", f"{prompt}{rejected}"], len(prompt)
            else:
                prompt = ""
                texts = [str(chosen), str(rejected)]
                start = _num_common(*texts)
                start -= texts[0][:start].endswith(" ")
            _check_pair(texts, start)
            cut = any_cut((prompt, chosen, rejected))
            return [Draft(Rendered(text, ((start, len(text)),)), plain=True, truncated=cut) for text in texts]
        checked = [
            check_messages(answer, name, self._options)
            for answer, name in zip(answers, ("chosen", "rejected"), strict=True)
        ]
        both = [messages for messages, _ in checked]
        cut = any(each for _, each in checked)
        if "prompt" in row:
            prompt_messages, prompt_cut = check_messages(row["prompt"], "prompt", self._options)
            both, cut = [prompt_messages + each for each in both], cut or prompt_cut
            first = len(prompt_messages)
        else:
            first = _num_common(*both)
        _check_pair(both, first)
        template, tools = self._needed_template(), check_tools(row.get("tools"))
        drafts = []
        for each in both:
            text = template.render(each, tools, "all").text
            span = template.prefix_chars(text, each, tools, first), len(text)
            drafts.append(Draft(Rendered(text, (span,)), plain=False, truncated=cut))
        return drafts

    def _needed_template(self) -> ChatTemplate:
        if self._template is None:
            raise RowError("messages stand where the other rows have texts", type="WrongType")
        return self._template


def _value(row: Row, column: str) -> Any:
    if column not in row:
        raise RowError(f"column {column!r} is missing", type="MissingColumn")
    return row[column]


def _num_common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many characters, or messages, two begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def _check_pair(answers: list[Any], start: int) -> None:
    """Whether two texts, or two conversations, share a beginning and then differ."""
    if answers[0] == answers[1]:
        raise RowError("chosen and rejected are the same", type="NothingToLearn")
    if not start:
        raise RowError("chosen and rejected have no prompt in common, and there is no column prompt", type="NoPrompt")
    if isinstance(answers[0], list) and any(len(answer) == start for answer in answers):
        raise RowError("of chosen and rejected one is only the beginning of the other", type="NothingToLearn")
