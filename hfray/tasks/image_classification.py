"""image-classification: an encoded image to ranked labels. Knows labels and pixels; not how a model is run.

Scores are those of Transformers' ImageClassificationPipeline: softmax over several labels, sigmoid for multi-label
models and for a single label, the bare number for regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task
from hfray.tasks.classification import label_scores_type, multi_label_metrics, single_label_metrics
from hfray.tasks.images import ImageOptions, image_of, pixel_values
from hfray.tasks.scores import ranked, sigmoid, softmax
from hfray.types import Array, Encoded, Item, Logits, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

Function = Literal["softmax", "sigmoid", "none"]

_FUNCTIONS: dict[Function, Callable[[Array], Array]] = {"softmax": softmax, "sigmoid": sigmoid, "none": np.asarray}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Options settled against the model: what decoding needs."""

    labels: tuple[str, ...]
    function: Function
    top_k: int | None


class ImageClassification(Task):
    """An image (bytes, or a struct with a field "bytes") to its labels, best first."""

    name: ClassVar[str] = "image-classification"
    summary: ClassVar[str] = "labels of an image, with scores"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    columns: ClassVar[tuple[str, ...]] = ("image",)
    metric_names = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy")
    needs_images: ClassVar[bool] = True
    needs_text: ClassVar[bool] = False

    class Options(ImageOptions):
        name: Literal["image-classification"] = "image-classification"
        top_k: Annotated[int, Field(gt=0)] | Literal["all"] = 5
        """How many labels to give, best first."""
        function: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
        """Logits to scores; auto: none for regression, sigmoid for multi-label or a single label, else softmax."""
        labels: list[str] | None = None
        """Names of the labels by index, in place of the model's own."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if processor.image_processor is None:
            raise SpecError(f"model {model_info.name} has no image processor (preprocessor_config.json)")
        self._plan = self._settle(options)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        plan = self._plan if options is None else self._settle(options)
        return [self._encode_row(row, options or self.options, plan) for row in rows]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        logits = np.asarray(outputs[0]["logits"], dtype=np.float32)
        return ranked(carry.labels, _FUNCTIONS[carry.function](logits), carry.top_k)

    def result_type(self) -> pa.DataType:
        return label_scores_type()

    def summarize(self, result: Result) -> Summary:
        return Summary(label=result[0]["label"], score=result[0]["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """ "accuracy" and "macro_f1" of the best label; multi-label: "micro_f1", "macro_f1", "subset_accuracy" of the
        labels above 0.5. Raises DataError for a reference that is no label, SpecError where nothing can be compared."""
        plan = self._plan
        if plan.function == "none" or len(plan.labels) == 1:
            raise SpecError(f"task {self.name} has no metrics for a model that gives numbers instead of labels")
        if plan.function == "softmax":
            return single_label_metrics(results, references, plan.labels)
        if plan.top_k is not None and plan.top_k < len(plan.labels):
            raise SpecError("metrics of a multi-label model compare all labels; set task.top_k: all")
        return multi_label_metrics(results, references, plan.labels)

    def _encode_row(self, row: Row, options: Any, plan: _Plan) -> Encoded | RowError:
        try:
            pixels = pixel_values(image_of(row, "image", options), self.processor.image_processor, "image")
        except RowError as error:
            return error
        return Encoded((Item("image", {"pixel_values": pixels}, Logits()),), plan)

    def _settle(self, options: Any) -> _Plan:
        info = self.model_info
        labels = info.labels if options.labels is None else tuple(options.labels)
        if not labels:
            raise SpecError(f"model {info.name} names no labels; give them as task.labels")
        if info.labels and len(labels) != len(info.labels):
            raise SpecError(
                f"task.labels has {len(labels)} names, but model {info.name} has {len(info.labels)} labels "
                f"({', '.join(info.labels[:8])})"
            )
        function: Function
        if options.function != "auto":
            function = options.function
        elif info.problem_type == "regression":
            function = "none"
        elif info.problem_type == "multi_label_classification" or len(labels) == 1:
            function = "sigmoid"
        else:
            function = "softmax"
        return _Plan(labels, function, None if options.top_k == "all" else options.top_k)
