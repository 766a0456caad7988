"""text-ranking: documents by their relevance to a query, with a cross-encoder. Knows pairs and scores; not batches.

Scores are those of sentence-transformers' CrossEncoder: one logit per (query, document), through a sigmoid by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.classification import logits_items
from hfray.tasks.metrics import mrr_at_k, ndcg_at_k, numbers_of
from hfray.tasks.scores import sigmoid, softmax
from hfray.tasks.text import TextEncoder, effective_max_length, text_of, texts_of
from hfray.types import Encoded, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one row's logits become scores: which column, and what is applied to it."""

    label: int
    function: Literal["softmax", "sigmoid", "none"]


class TextRanking(Task):
    name: ClassVar[str] = "text-ranking"
    summary: ClassVar[str] = "documents ranked by relevance to a query, by a cross-encoder"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    columns: ClassVar[tuple[str, ...]] = ("query", "text")
    metric_names = ("mrr@10", "ndcg@10")
    training_mode: ClassVar[str | None] = "pair"

    class Options(TaskOptions):
        name: Literal["text-ranking"] = "text-ranking"
        function: Literal["auto", "sigmoid", "none"] = "auto"
        """Logit to score; auto: sigmoid for a model with one label, the share of `label` (softmax) otherwise."""
        label: str | None = None
        """Which label means "relevant", for a model with several labels."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._plan = self._settle(options)
        self._encoder = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))
        self._encoder(effective_max_length(options, model_info.max_length))

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        plan = self._plan if options is None else self._settle(options)
        options = options or self.options
        encoder = self._encoder(effective_max_length(options, self.model_info.max_length))
        read: list[tuple[str, list[str]] | RowError] = []
        for row in rows:
            try:
                query = text_of(row, "query", options)
                read.append((query, texts_of(row, "text", options)))
            except RowError as error:
                read.append(error)
        pairs = [(each[0], text) for each in read if not isinstance(each, RowError) for text in each[1]]
        tokens = encoder.encode([query for query, _ in pairs], [text for _, text in pairs])
        start = 0
        encoded: list[Encoded | RowError] = []
        for each in read:
            if isinstance(each, RowError):
                encoded.append(each)
            else:
                encoded.append(logits_items(encoder, tokens[start : start + len(each[1])], plan))
                start += len(each[1])
        return encoded

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        plan: _Plan = carry
        logits = np.stack([output["logits"] for output in outputs]).astype(np.float32)
        if plan.function == "softmax":
            scores = softmax(logits)[:, plan.label]
        else:
            scores = logits[:, plan.label]
            scores = sigmoid(scores) if plan.function == "sigmoid" else scores
        best = np.argsort(-scores, kind="stable")
        return [{"index": int(index), "score": float(scores[index])} for index in best]

    def result_type(self) -> pa.DataType:
        """list<struct<index: int64, score: float>>, best first; `index` is the place in the list in column `text`."""
        import pyarrow as pa

        return pa.list_(pa.struct([("index", pa.int64()), ("score", pa.float32())]))

    def summarize(self, result: Result) -> Summary:
        return Summary(score=result[0]["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """mrr@10 and ndcg@10. A reference is the index of the relevant text, or a list with the relevance of each text
        (0 for none). Raises DataError for anything else."""
        rankings = [[entry["index"] for entry in result] for result in results]
        relevances = [
            _relevance(reference, len(ranking)) for reference, ranking in zip(references, rankings, strict=True)
        ]
        return {"mrr@10": mrr_at_k(rankings, relevances, 10), "ndcg@10": ndcg_at_k(rankings, relevances, 10)}

    def _settle(self, options: Any) -> _Plan:
        labels, name = self.model_info.labels, self.model_info.name
        shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        if options.label is not None and options.label not in labels:
            raise SpecError(f"task.label {options.label!r} is not a label of model {name}; it has {shown or 'none'}")
        if len(labels) == 1:
            return _Plan(0, "none" if options.function == "none" else "sigmoid")
        if options.label is None:
            raise SpecError(
                f"text-ranking needs one score per text, but model {name} has {len(labels)} labels ({shown}); "
                "say with task.label which of them means relevant"
            )
        return _Plan(labels.index(options.label), "softmax" if options.function == "auto" else options.function)


def _relevance(reference: Any, num_texts: int) -> list[float]:
    if isinstance(reference, list | tuple | np.ndarray):
        if len(reference) != num_texts:
            raise DataError(f"reference {reference!r} has {len(reference)} relevances for {num_texts} texts")
        return numbers_of(reference)
    is_index = isinstance(reference, int | np.integer) and not isinstance(reference, bool)
    if not is_index and not (isinstance(reference, str) and reference.isdecimal()):
        raise DataError(
            f"reference {reference!r} ({type(reference).__name__}) is neither the index of the relevant text nor a "
            "list of relevances"
        )
    if not 0 <= int(reference) < num_texts:
        raise DataError(f"reference {reference!r} is not the index of one of {num_texts} texts")
    return [float(index == int(reference)) for index in range(num_texts)]
