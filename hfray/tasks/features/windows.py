"""windows: a question before windows of its context, with the tokens where the answer begins and ends, for extractive
question answering. Knows answers and offsets; `context_windows` knows how windows advance.

The examples are those of the Hugging Face course (https://huggingface.co/learn/llm-course/chapter7/7): leading blanks
of a question are dropped; an answer that is not wholly inside a window is at the window's CLS token; of several answers
the first one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.context_windows import DEFAULT_MAX_LENGTH, ContextWindows
from hfray.tasks.features.base import FeatureOptions, Features
from hfray.tasks.text import CutText, Tokens, any_cut, text_of
from hfray.types import Array, Column, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Source:
    """One row, checked."""

    question: str
    context: str
    answer: tuple[int, int] | None
    """First character in the context, and the one after the last; None: there is no answer."""
    id: str | None

    @property
    def cut(self) -> bool:
        return any_cut((self.question, self.context))


@dataclass(frozen=True, slots=True)
class _Made:
    """What the windows made so far have in each column."""

    rows: list[int] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    offsets: list[Array] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)


class Windows(Features):
    name: ClassVar[str] = "windows"
    summary: ClassVar[str] = "a question before windows of its context, for extractive question answering"
    columns: ClassVar[tuple[str, ...]] = ("question", "context")
    optional_columns: ClassVar[tuple[str, ...]] = ("answers", "id")

    class Options(FeatureOptions):
        name: Literal["windows"] = "windows"
        stride: int | None = Field(default=None, ge=1)
        """Tokens that neighbouring windows of a long context share; default: 128, or half of max_length if that is
        less. A row fails if its question leaves no more than that for the context, and the context does not fit."""

    @classmethod
    def default_max_length(cls, limit: int | None) -> int | None:
        """384, as the course has it, or the tokenizer's own limit if that is less."""
        return DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit)

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        if max_length is None:
            max_length = min(DEFAULT_MAX_LENGTH, int(tokenizer.model_max_length))
        super().__init__(options, tokenizer, max_length, present)
        self._windows = ContextWindows(tokenizer, max_length, options.stride, "mode windows: stride")
        if not self._windows.encoder.has_offsets:
            raise SpecError(
                "mode windows needs a fast tokenizer (tokenizer.json): others do not say where a token stands"
            )
        self._has_answers = "answers" in present
        if self._has_answers:
            _check_type(present["answers"])
        self._token_types = "token_type_ids" in tokenizer.model_input_names

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        sources: dict[int, _Source] = {}
        for index, row in enumerate(rows):
            try:
                source = self._source(row)
                self._windows.check(source.question, source.context)
                sources[index] = source
            except RowError as error:
                errors[index] = error
        encoded = self._windows.encode(
            [source.question for source in sources.values()], [source.context for source in sources.values()]
        )
        made = _Made()
        truncated: list[int] = []
        for (index, source), tokens in zip(sources.items(), encoded, strict=True):
            if isinstance(tokens, RowError):
                errors[index] = tokens
                continue
            for window in (tokens, *tokens.windows):
                self._add(made, index, source, window)
            if source.cut:  # windows leave nothing out by themselves
                truncated.append(index)
        return Examples(np.array(made.rows, np.int64), self._columns(made), errors, tuple(truncated))

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        fields = [("input_ids", pa.list_(pa.int32()))]
        fields += [("token_type_ids", pa.list_(pa.int32()))] if self._token_types else []
        fields += [("start_positions", pa.int32()), ("end_positions", pa.int32())] if self._has_answers else []
        fields += [("offset_mapping", pa.list_(pa.list_(pa.int32(), 2)))]
        fields += [("example_id", pa.string())] if "id" in self.present else []
        return pa.schema(fields)

    def _source(self, row: Row) -> _Source:
        question, context = (text_of(row, name, self.options) for name in ("question", "context"))
        stripped = question.lstrip()
        question = CutText(stripped) if isinstance(question, CutText) else stripped
        answer = _answer(row.get("answers"), context) if self._has_answers else None
        id_ = row.get("id")
        return _Source(question, context, answer, None if id_ is None else str(id_))

    def _add(self, made: _Made, index: int, source: _Source, window: Tokens) -> None:
        if window.offsets is None or window.sequence_ids is None:
            raise ValueError("the encoder gives no offsets")
        in_context = window.sequence_ids == 1
        made.rows.append(index)
        made.tokens.append(window)
        made.offsets.append(np.where(in_context[:, None], window.offsets, -1))
        made.ids.append(source.id)
        if self._has_answers:
            span = None
            if source.answer is not None:
                places = np.flatnonzero(in_context)
                found = _span(window.offsets[places], *source.answer)
                span = None if found is None else (int(places[found[0]]), int(places[found[1]]))
            if span is None:
                place = self._cls_place(window.ids)
                span = (place, place)
            made.spans.append(span)

    def _cls_place(self, ids: Array) -> int:
        """Where the token stands that means "no answer"; the first one without any, as in Transformers' run_qa.py."""
        for special in (self.tokenizer.cls_token_id, self.tokenizer.bos_token_id):
            if special is not None and (ids == special).any():
                return int(np.argmax(ids == special))
        return 0

    def _columns(self, made: _Made) -> dict[str, Column]:
        ids = Ragged.of([window.ids for window in made.tokens])
        columns: dict[str, Column] = {"input_ids": ids}
        if self._token_types:
            columns["token_type_ids"] = Ragged.of([window.type_ids for window in made.tokens])
        if self._has_answers:
            spans = np.array(made.spans, np.int32).reshape(-1, 2)
            columns["start_positions"], columns["end_positions"] = spans[:, 0].copy(), spans[:, 1].copy()
        places = [*made.offsets, np.zeros((0, 2), np.int64)]  # of no window, still pairs
        columns["offset_mapping"] = Ragged(np.concatenate(places).astype(np.int32), ids.offsets)
        if "id" in self.present:
            columns["example_id"] = made.ids
        return columns


def _check_type(type_: pa.DataType) -> None:
    import pyarrow as pa

    names = [type_.field(place).name for place in range(type_.num_fields)] if pa.types.is_struct(type_) else []
    if not {"text", "answer_start"} <= set(names):
        raise SpecError(
            f"mode windows: column 'answers' is {type_}; it must be a struct of the lists 'text' and 'answer_start', "
            "as in SQuAD"
        )


def _answer(value: Any, context: str) -> tuple[int, int] | None:
    """The first answer's characters; None for no answer, "" among them. Raises RowError WrongType, AnswerMismatch."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RowError(f"answers is {type(value).__name__}, not a struct of text and answer_start", type="WrongType")
    texts, starts = ([] if value.get(name) is None else value[name] for name in ("text", "answer_start"))
    for name, each in (("text", texts), ("answer_start", starts)):
        if not isinstance(each, list | tuple | np.ndarray):
            raise RowError(f"answers.{name} is {type(each).__name__}, not a list", type="WrongType")
    if len(texts) != len(starts):
        raise RowError(f"answers has {len(texts)} texts and {len(starts)} starts", type="WrongType")
    if not len(texts) or texts[0] == "":
        return None
    text, start = texts[0], starts[0]
    if not isinstance(text, str) or not isinstance(start, int | np.integer) or isinstance(start, bool):
        raise RowError(
            f"the first answer is {type(text).__name__} at {type(start).__name__}, not text at a whole number",
            type="WrongType",
        )
    start, end = int(start), int(start) + len(text)
    beyond = isinstance(context, CutText) and end > len(context)
    if start < 0 or not (beyond or context[start:end] == text):
        there = f"{context[start:end]!r:.100}" if 0 <= start < len(context) else "nothing"
        raise RowError(
            f"answer {text!r:.100} is not at character {start} of the context; there is {there}", type="AnswerMismatch"
        )
    return start, end


def _span(offsets: Array, start: int, end: int) -> tuple[int, int] | None:
    """The first and last of some tokens that hold the characters from `start` to `end`; None if they do not hold all.

    offsets: [num_tokens, 2].
    """
    if not len(offsets) or offsets[0, 0] > start or offsets[-1, 1] < end:
        return None
    later = np.flatnonzero(offsets[:, 0] > start)
    first = (int(later[0]) if len(later) else len(offsets)) - 1
    earlier = np.flatnonzero(offsets[:, 1] < end)
    last = (int(earlier[-1]) if len(earlier) else -1) + 1
    return first, last
