"""text-classification: one text or a pair to ranked labels. Knows labels and logits; not how a model is run.

Scores are those of Transformers' TextClassificationPipeline: softmax over several labels, sigmoid for multi-label
models and for a single label, the bare number for regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.classification import (
    label_scores_type,
    logits_items,
    multi_label_metrics,
    regression_metrics,
    single_label_metrics,
)
from hfray.tasks.scores import ranked, sigmoid, softmax
from hfray.tasks.text import TextEncoder, effective_max_length, text_of
from hfray.types import Array, Encoded, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

Function = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Options settled against the model: what decoding needs."""

    labels: tuple[str, ...]
    function: Function
    top_k: int | None
    threshold: float | None


class TextClassification(Task):
    name: ClassVar[str] = "text-classification"
    summary: ClassVar[str] = "labels of a text or of a pair of texts, with scores"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    metric_names = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "pearson", "spearman")
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair",)
    training_mode: ClassVar[str | None] = "plain"

    class Options(TaskOptions):
        name: Literal["text-classification"] = "text-classification"
        top_k: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
        """How many labels to give, best first; default: 1, or with a `threshold` all labels above it."""
        function: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
        """Logits to scores; auto: none for regression, sigmoid for multi-label or a single label, else softmax."""
        labels: tuple[str, ...] | None = None
        """Names of the labels by index, in place of the model's own."""
        threshold: float | None = Field(default=None, ge=0, lt=1)
        """Multi-label: keep only labels scored above it (the list may be empty); metrics use it too, else 0.5."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._plan = self._settle(options)
        self._encoder = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))
        self._encoder(effective_max_length(options, model_info.max_length))

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        plan = self._plan if options is None else self._settle(options)
        options = options or self.options
        encoder = self._encoder(effective_max_length(options, self.model_info.max_length))
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        singles: list[tuple[int, str]] = []
        pairs: list[tuple[int, str, str]] = []
        for index, row in enumerate(rows):
            try:
                text = text_of(row, "text", options)
                if "text_pair" in row:
                    pairs.append((index, text, text_of(row, "text_pair", options)))
                else:
                    singles.append((index, text))
            except RowError as error:
                encoded[index] = error
        tokens = encoder.encode([text for _, text in singles])
        tokens += encoder.encode([text for _, text, _ in pairs], [pair for _, _, pair in pairs])
        indices = [each[0] for each in singles] + [each[0] for each in pairs]
        for index, each in zip(indices, tokens, strict=True):
            encoded[index] = logits_items(encoder, [each], plan)
        return [each for each in encoded if each is not None]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        plan: _Plan = carry
        scores = _apply(plan.function, outputs[0]["logits"])
        result = ranked(plan.labels, scores, plan.top_k)
        return result if plan.threshold is None else [each for each in result if each["score"] > plan.threshold]

    def result_type(self) -> pa.DataType:
        return label_scores_type()

    def summarize(self, result: Result) -> Summary:
        return Summary(label=result[0]["label"], score=result[0]["score"]) if result else Summary()

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """accuracy and macro_f1; multi-label: micro_f1, macro_f1, subset_accuracy; one label or regression: pearson
        and spearman. Raises DataError for a wrong reference, SpecError where `top_k` hid what would be compared."""
        plan = self._plan
        if len(plan.labels) == 1:
            if plan.threshold is not None:
                raise SpecError("task.threshold drops scores that the metrics would compare; leave it out")
            return regression_metrics(results, references)
        if self._is_regression:
            raise SpecError(f"no metrics for a regression with {len(plan.labels)} outputs: {', '.join(plan.labels)}")
        if plan.function != "sigmoid":
            return single_label_metrics(results, references, plan.labels)
        if plan.top_k is not None and plan.top_k < len(plan.labels):
            raise SpecError("metrics of a multi-label model compare all labels; set task.top_k: all, or task.threshold")
        threshold = 0.5 if plan.threshold is None else plan.threshold
        return multi_label_metrics(results, references, plan.labels, threshold=threshold)

    @property
    def _is_regression(self) -> bool:
        return self.model_info.problem_type == "regression"

    def _settle(self, options: Any) -> _Plan:
        own = self.model_info.labels
        labels = own if options.labels is None else options.labels
        if not labels:
            raise SpecError(f"model {self.model_info.name} names no labels; give them as task.labels")
        if own and len(labels) != len(own):
            raise SpecError(
                f"task.labels has {len(labels)} names, but model {self.model_info.name} has {len(own)} labels "
                f"({', '.join(own[:8])})"
            )
        if options.labels is not None and len(set(labels)) < len(labels):
            raise SpecError("task.labels names a label twice; every index needs a name of its own")
        function: Function
        if options.function != "auto":
            function = options.function
        elif self._is_regression:
            function = "none"
        elif self.model_info.problem_type == "multi_label_classification" or len(labels) == 1:
            function = "sigmoid"
        else:
            function = "softmax"
        if options.threshold is not None and function != "sigmoid":
            raise SpecError(
                f"task.threshold is for multi-label scores, but this model's go through {function}; "
                "leave it out, or set task.function: sigmoid"
            )
        default_top_k = 1 if options.threshold is None else None
        top_k = {None: default_top_k, "all": None}.get(options.top_k, options.top_k)
        return _Plan(labels, function, top_k, options.threshold)


def _apply(function: Function, logits: Array) -> Array:
    logits = np.asarray(logits, dtype=np.float32)
    if function == "none":
        return logits
    return softmax(logits) if function == "softmax" else sigmoid(logits)
