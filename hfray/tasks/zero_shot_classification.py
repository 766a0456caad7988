"""zero-shot-classification: labels that the model was not trained on, by entailment. Knows premise and hypothesis.

Each candidate label becomes a hypothesis ("This example is sports."), the text is the premise, and the entailment
logit of a natural-language-inference model is the label's score, as in Transformers' ZeroShotClassificationPipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.candidates import candidates_of, check_candidates, hypothesis
from hfray.tasks.classification import label_scores_type, logits_items, multi_label_metrics, single_label_metrics
from hfray.tasks.scores import ranked, softmax
from hfray.tasks.text import TextEncoder, effective_max_length, text_of
from hfray.types import Encoded, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Carry:
    labels: tuple[str, ...]
    multi_label: bool


class ZeroShotClassification(Task):
    name: ClassVar[str] = "zero-shot-classification"
    summary: ClassVar[str] = "which of any given labels fit a text, by natural language inference"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    metric_names = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy")
    optional_columns: ClassVar[tuple[str, ...]] = ("candidate_labels",)

    class Options(TaskOptions):
        name: Literal["zero-shot-classification"] = "zero-shot-classification"
        candidate_labels: tuple[str, ...] = ()
        """The labels to choose from; a row's own column `candidate_labels` (a list, or text with commas) goes first."""
        hypothesis_template: str = "This example is {}."
        """The sentence that says a label fits; the label takes the place of {}."""
        multi_label: bool = False
        """Whether several labels may fit: each is then scored alone, entailment against contradiction."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._entailment = _entailment_id(model_info)
        self._contradiction = -1 if self._entailment == 0 else 0
        check_candidates(options)
        # Only the text may be cut: a label without its end is another label.
        self._encoder = lru_cache(maxsize=4)(
            lambda limit: TextEncoder(processor.tokenizer, limit, truncation="only_first")
        )
        self._encoder(effective_max_length(options, model_info.max_length))

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        if options is not None:
            check_candidates(options)
        options = options or self.options
        encoder = self._encoder(effective_max_length(options, self.model_info.max_length))
        read = [_read(row, options) for row in rows]
        pairs = [(text, label) for text, labels in _good(read) for label in labels]
        sentences = [hypothesis(options.hypothesis_template, label) for _, label in pairs]
        tokens = encoder.encode([text for text, _ in pairs], sentences)
        start = 0
        encoded: list[Encoded | RowError] = []
        for each in read:
            if isinstance(each, RowError):
                encoded.append(each)
                continue
            labels = each[1]
            encoded.append(
                logits_items(encoder, tokens[start : start + len(labels)], _Carry(labels, options.multi_label))
            )
            start += len(labels)
        return encoded

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        logits = np.stack([output["logits"] for output in outputs]).astype(np.float32)
        if carry.multi_label or len(carry.labels) == 1:
            scores = softmax(logits[:, [self._contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        return ranked(carry.labels, scores)

    def result_type(self) -> pa.DataType:
        return label_scores_type()

    def summarize(self, result: Result) -> Summary:
        return Summary(label=result[0]["label"], score=result[0]["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """accuracy and macro_f1; with `multi_label`: micro_f1, macro_f1 and subset_accuracy of the labels above 0.5.

        An index counts in the job's `candidate_labels`. Raises DataError for a reference that is no label."""
        labels = self.options.candidate_labels
        compare = multi_label_metrics if self.options.multi_label else single_label_metrics
        return compare(results, references, labels, closed=False)


def _entailment_id(info: ModelInfo) -> int:
    found = [index for index, label in enumerate(info.labels) if label.lower().startswith("entail")]
    if not found or len(info.labels) < 2:
        raise SpecError(
            "zero-shot-classification needs a natural-language-inference model, with a label that starts with "
            f'"entail" and one against it; model {info.name} has the labels {", ".join(info.labels[:8]) or "(none)"}'
        )
    return found[0]


def _read(row: Row, options: Any) -> tuple[str, tuple[str, ...]] | RowError:
    try:
        return text_of(row, "text", options), candidates_of(row, options)
    except RowError as error:
        return error


def _good(read: Sequence[tuple[str, tuple[str, ...]] | RowError]) -> list[tuple[str, tuple[str, ...]]]:
    return [each for each in read if not isinstance(each, RowError)]
