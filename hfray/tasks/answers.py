"""An answer taken apart while it comes: what a model thought, what it says, which tools it calls. Knows text; not
tokens, not templates.

A text at once and the same text in pieces give the same parts: the whole is parsed as one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hfray.tasks.streaming import overlap
from hfray.tasks.tool_calls import Texts, ToolCall, ToolFormat, with_types

REASONING_MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


@dataclass(frozen=True, slots=True)
class Delta:
    """What is known now and was not before; one of the three."""

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `reasoning` is None where there is none."""

    content: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]


def answer_of(deltas: Iterable[Delta]) -> Answer:
    """The parts put together."""
    deltas = list(deltas)
    reasoning = "".join(each.reasoning for each in deltas)
    calls = tuple(each.tool_call for each in deltas if each.tool_call is not None)
    return Answer("".join(each.content for each in deltas), reasoning or None, calls)


class AnswerParser:
    """tools: how calls are written; None: they are text. texts: which of their arguments are texts. in_reasoning: the
    prompt ends inside of the reasoning.

    Reasoning is what lies between its marks at the beginning of an answer; without the second mark it is all there is.
    White space where two parts meet belongs to neither.
    """

    def __init__(
        self, tools: ToolFormat | None = None, *, texts: Texts = frozenset(), in_reasoning: bool = False
    ) -> None:
        self._tools = tools
        self._texts = texts
        self._step: Callable[[bool], list[Delta] | None] = self._reason if in_reasoning else self._begin
        self._closings = [closing for _, closing in REASONING_MARKS]
        self._text = ""  # seen, not given out
        self._fresh = in_reasoning  # nothing of this part was given out, and another one came before it
        self._spoke = False
        self._gap = self._opening = ""  # of the call that is being read

    def push(self, text: str) -> list[Delta]:
        return self._run(text, last=False)

    def finish(self) -> list[Delta]:
        """The rest, after the last piece."""
        return self._run("", last=True)

    def _run(self, text: str, *, last: bool) -> list[Delta]:
        self._text += text
        found: list[Delta] = []
        while (deltas := self._step(last)) is not None:
            found += deltas
        return found

    # Each step gives out what is certain and names the next one; None: it waits for more text.

    def _begin(self, last: bool) -> list[Delta] | None:
        text = self._text.lstrip()
        for opening, closing in REASONING_MARKS:
            if text.startswith(opening):
                self._text, self._closings, self._fresh = text[len(opening) :], [closing], True
                self._step = self._reason
                return []
        if not last and any(opening.startswith(text) for opening, _ in REASONING_MARKS):
            return None
        self._step = self._speak
        return []

    def _reason(self, last: bool) -> list[Delta] | None:
        place, closing = _first(self._text, self._closings)
        if closing:
            reasoning, self._text = self._text[:place].rstrip(), self._text[place + len(closing) :]
            self._step = self._speak
        else:
            certain = len(self._text) if last else _certain(self._text, self._closings)
            reasoning, self._text = self._text[:certain], self._text[certain:]
        if self._fresh:
            reasoning = reasoning.lstrip()
        self._fresh = bool(closing) or (self._fresh and not reasoning)
        deltas = [Delta(reasoning=reasoning)] if reasoning else []
        return deltas if deltas or closing else None

    def _speak(self, last: bool) -> list[Delta] | None:
        if self._fresh:
            self._text = self._text.lstrip()
        openings = () if self._tools is None else self._tools.opening
        place, opening = _first(self._text, openings)
        if self._tools is not None and self._tools.only_first:
            if self._spoke or (place and self._text[:place].strip()):
                place, opening, openings = 0, "", ()
            elif self._text.strip() and not opening and not _overlap_whole(self._text.strip(), openings):
                openings = ()
        if opening:
            before, rest = self._text[:place], self._text[place:]
            content = before.rstrip()
            self._gap, self._opening, self._text = before[len(content) :], opening, rest[len(opening) :]
            self._step = self._call
        else:
            certain = len(self._text) if last or self._tools is None else _certain(self._text, openings)
            content, self._text = self._text[:certain], self._text[certain:]
        if content:
            self._spoke, self._fresh = True, False
            return [Delta(content)]
        return [] if opening else None

    def _call(self, last: bool) -> list[Delta] | None:
        tools = self._tools
        if tools is None:
            raise RuntimeError("a call without a format; this is a mistake in hfray")
        place, closing = _first(self._text, () if tools.closing is None else (tools.closing,))
        if not closing and not last:
            return None
        body, rest = (self._text[:place], self._text[place + len(closing) :]) if closing else (self._text, "")
        calls = tools.parse(self._opening + body if self._opening == "{" else body)
        self._text, self._step = rest, self._speak
        if calls is None:
            self._spoke, self._fresh = True, False
            return [Delta(self._gap + self._opening + body + closing)]
        self._fresh = True
        if tools.untyped:
            calls = [with_types(call, self._texts) for call in calls]
        return [Delta(tool_call=call) for call in calls]


def _first(text: str, marks: Iterable[str]) -> tuple[int, str]:
    """The earliest mark in the text and its place; (0, "") if there is none."""
    found = [(place, mark) for mark in marks if (place := text.find(mark)) >= 0]
    return min(found, default=(0, ""))


def _overlap_whole(text: str, marks: Sequence[str]) -> bool:
    """Whether the text may yet become a mark."""
    return any(mark.startswith(text) for mark in marks)


def _certain(text: str, marks: Sequence[str]) -> int:
    """How many characters are before what may be the beginning of a mark, and before the white space around it."""
    return len(text[: len(text) - overlap(text, marks)].rstrip())
