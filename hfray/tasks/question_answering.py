"""question-answering: spans of a context that answer a question. Knows windows, words and spans; no model.

Transformers 5 has no such pipeline any more; the scores here are those of QuestionAnsweringPipeline in 4.57
(transformers/pipelines/question_answering.py): per window, softmax of starts times softmax of ends over the tokens of
the context and the leading CLS token, spans widened to whole words, equal answers added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.context_windows import DEFAULT_MAX_LENGTH, ContextWindows
from hfray.tasks.metrics import squad_exact_match_and_f1
from hfray.tasks.scores import softmax
from hfray.tasks.text import Tokens, effective_max_length, text_of
from hfray.types import Array, Encoded, Item, Output, Result, Row, Spans

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a context that one item shows."""

    first: int
    """Where its tokens begin among the item's."""
    starts: Array
    """[num_context_tokens]: first character of the word that the token belongs to."""
    ends: Array
    """[num_context_tokens]: the character after that word."""
    has_cls: bool
    """Whether the first token is the model's CLS token, which stands for "no answer"."""


@dataclass(frozen=True, slots=True)
class _Carry:
    context: str
    windows: tuple[_Window, ...]
    options: Any


class QuestionAnswering(Task):
    """A question and a context to the spans of the context that answer it, best first.

    Answers are exact slices of the context, `start` and `end` count its characters. "No answer" is the answer "" from 0
    to 0. `tokenizer.padding_side` must be right (question first), as it is for all encoder models.
    """

    name: ClassVar[str] = "question-answering"
    summary: ClassVar[str] = "the spans of a context that answer a question"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForQuestionAnswering"
    columns: ClassVar[tuple[str, ...]] = ("question", "context")
    metric_names = ("exact_match", "f1")
    training_mode: ClassVar[str | None] = "windows"

    class Options(TaskOptions):
        name: Literal["question-answering"] = "question-answering"
        max_length: int | None = Field(default=None, ge=4)
        """Most tokens of one window, question included; default: 384, or the model's own limit if that is less."""
        top_k: int = Field(default=1, ge=1)
        """How many answers to give, best first; there may be fewer."""
        doc_stride: int | None = Field(default=None, ge=1)
        """Tokens that neighbouring windows of a long context share; default: 128, or half of max_length if that is
        less. The row fails if its question leaves no more than that for the context, and the context does not fit."""
        max_answer_length: int = Field(default=30, ge=1)
        """Most tokens of an answer."""
        no_answer: bool = False
        """Whether "no answer" competes with the spans (models trained on SQuAD 2)."""
        no_answer_threshold: float = Field(default=0.0, ge=-1.0, le=1.0)
        """How much the score of "no answer" must exceed that of a span to go before it."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._windows_of = lru_cache(maxsize=4)(
            lambda max_length, stride: ContextWindows(processor.tokenizer, max_length, stride, "task.doc_stride")
        )
        if not self._windows(options).encoder.has_offsets:
            raise SpecError(
                f"task {self.name} needs a fast tokenizer (tokenizer.json), which {model_info.name} does not have"
            )
        self._cls_id = processor.tokenizer.cls_token_id

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = options or self.options
        splitter = self._windows(options)
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        pairs: dict[int, tuple[str, str]] = {}
        for index, row in enumerate(rows):
            try:
                pair = text_of(row, "question", options), text_of(row, "context", options)
                splitter.check(*pair)
                pairs[index] = pair
            except RowError as error:
                encoded[index] = error
        questions = [question for question, _ in pairs.values()]
        contexts = [context for _, context in pairs.values()]
        encodings = splitter.encode(questions, contexts)
        for index, context, tokens in zip(pairs, contexts, encodings, strict=True):
            if isinstance(tokens, RowError):
                encoded[index] = tokens
                continue
            windows = (tokens, *tokens.windows)
            items = tuple(Item("text", splitter.encoder.model_inputs(window), Spans()) for window in windows)
            carry = _Carry(context, tuple(map(self._window, windows)), options)
            encoded[index] = Encoded(items, carry, tokens.truncated)
        return [each for each in encoded if each is not None]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        options = carry.options
        no_answer = 1.0
        answers: dict[str, dict[str, Any]] = {}
        for output, window in zip(outputs, carry.windows, strict=True):
            starts, cls_start = _probabilities(output["start"], window)
            ends, cls_end = _probabilities(output["end"], window)
            no_answer = min(no_answer, cls_start * cls_end)
            # Words may widen several spans to the same answer, so more are drawn than wanted; the number is 4.57's.
            for first, last, score in best_spans(starts, ends, options.max_answer_length, 2 * options.top_k + 10):
                start, end = int(window.starts[first]), int(window.ends[last])
                answer = carry.context[start:end]
                known = answers.setdefault(answer.lower(), {"answer": answer, "score": 0.0, "start": start, "end": end})
                known["score"] += score
        found = sorted(answers.values(), key=lambda answer: -answer["score"])
        if options.no_answer:
            limit = no_answer - options.no_answer_threshold
            place = next((index for index, answer in enumerate(found) if answer["score"] < limit), len(found))
            found.insert(place, {"answer": "", "score": no_answer, "start": 0, "end": 0})
        return found[: options.top_k]

    def result_type(self) -> pa.DataType:
        import pyarrow as pa

        fields = {"answer": pa.string(), "score": pa.float32(), "start": pa.int64(), "end": pa.int64()}
        return pa.list_(pa.struct(fields))

    def summarize(self, result: Result) -> Summary:
        return Summary(score=result[0]["score"]) if result else Summary()

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """SQuAD's "exact_match" and "f1" of the best answers, in percent.

        A reference is a text, a list of accepted texts, or a struct with the field "text" (SQuAD's own); none, or "",
        means that there is no answer. Raises DataError.
        """
        found = [result[0]["answer"] if result else "" for result in results]
        return squad_exact_match_and_f1(found, [_accepted(each, row) for row, each in enumerate(references)])

    def _windows(self, options: Any) -> ContextWindows:
        limit = effective_max_length(options, self.model_info.max_length) or DEFAULT_MAX_LENGTH
        max_length = limit if options.max_length is not None else min(limit, DEFAULT_MAX_LENGTH)
        found: ContextWindows = self._windows_of(max_length, options.doc_stride)
        return found

    def _window(self, tokens: Tokens) -> _Window:
        if tokens.offsets is None or tokens.sequence_ids is None or tokens.word_ids is None:
            raise TypeError("the tokens were encoded without offsets")
        places = np.flatnonzero(tokens.sequence_ids == 1)
        offsets, words = tokens.offsets[places], tokens.word_ids[places]
        begins = np.append(True, (np.diff(words) != 0) | (words[1:] < 0))[: len(words)]
        word = np.cumsum(begins) - 1
        heads = np.flatnonzero(begins)
        tails = np.append(heads[1:], len(words)) - 1
        return _Window(
            first=int(places[0]) if len(places) else 0,
            starts=offsets[heads[word], 0],
            ends=offsets[tails[word], 1],
            has_cls=self._cls_id is not None and len(tokens.ids) > 0 and int(tokens.ids[0]) == self._cls_id,
        )


def best_spans(starts: Array, ends: Array, max_length: int, top_k: int) -> list[tuple[int, int, float]]:
    """The likeliest spans (first token, last token, score), best first; score = starts[first] * ends[last].

    starts, ends: [num_tokens] probabilities. A span has 1 to `max_length` tokens. Only the band of possible spans is
    computed, [num_tokens, max_length].
    """
    num_tokens = len(starts)
    if not num_tokens:
        return []
    length = min(max_length, num_tokens)
    padded = np.concatenate([ends, np.full(length - 1, -1.0)])  # ends beyond the text rank last
    scores = (starts[:, None] * np.lib.stride_tricks.sliding_window_view(padded, length)).ravel()
    count = min(top_k, scores.size)
    best = np.argpartition(-scores, count - 1)[:count]
    best = best[np.lexsort((best, -scores[best]))]
    firsts, extras = np.divmod(best, length)
    return [
        (int(first), int(first + extra), float(score))
        for first, extra, score in zip(firsts, extras, scores[best], strict=True)
        if first + extra < num_tokens
    ]


def _probabilities(logits: Array, window: _Window) -> tuple[Array, float]:
    """Softmax over the window's context tokens, float64 [num_context_tokens], and the CLS token's share of it."""
    context = logits[window.first : window.first + len(window.starts)]
    cls = logits[:1] if window.has_cls else logits[:0]
    both = np.concatenate([cls, context]).astype(np.float64)
    if not len(both):
        return both, 0.0
    shares = softmax(both)
    return shares[len(cls) :], float(shares[: len(cls)].sum())


def _accepted(reference: Any, row: int) -> list[str]:
    value = reference.get("text") if isinstance(reference, Mapping) else reference
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"reference {row} is {reference!r:.100}; it must be a text, a list of texts or a struct with a field 'text'"
        )
    return list(texts)
