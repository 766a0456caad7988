"""zero-shot-image-classification: which of any given labels fit an image, by CLIP or SigLIP. Knows labels and pixels.

Scores are those of Transformers' ZeroShotImageClassificationPipeline (5.23): the cosine of image and label sentence,
scaled as the model learned it; softmax over the labels (CLIP), or a sigmoid for each (SigLIP).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import EngineError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task
from hfray.tasks.candidates import candidates_of, check_candidates, hypothesis
from hfray.tasks.classification import label_scores_type, single_label_metrics
from hfray.tasks.images import ImageOptions, image_of, pixel_values
from hfray.tasks.scores import ranked, sigmoid, softmax
from hfray.tasks.text import TextEncoder, Tokens, any_cut, effective_max_length
from hfray.types import Array, Encoded, Features, Item, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

_SIGLIP_LENGTH = 64
"""SigLIP was trained on texts padded to 64 tokens, without an attention mask; the pipeline gives it just that."""


class ZeroShotImageClassification(Task):
    """An image (bytes, or a struct with a field "bytes") and labels to the labels, best first."""

    name: ClassVar[str] = "zero-shot-image-classification"
    summary: ClassVar[str] = "which of any given labels fit an image, by CLIP or SigLIP"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModel"
    columns: ClassVar[tuple[str, ...]] = ("image",)
    metric_names = ("accuracy", "macro_f1")
    optional_columns: ClassVar[tuple[str, ...]] = ("candidate_labels",)
    needs_images: ClassVar[bool] = True

    class Options(ImageOptions):
        name: Literal["zero-shot-image-classification"] = "zero-shot-image-classification"
        candidate_labels: tuple[str, ...] = ()
        """The labels to choose from; a row's own column `candidate_labels` (a list, or text with commas) goes first."""
        hypothesis_template: str = "This is a photo of {}."
        """The sentence that says a label fits; the label takes the place of {}."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        if processor.image_processor is None or processor.tokenizer is None:
            raise SpecError(
                f"task {self.name} needs a model with a tokenizer and an image processor, such as CLIP or SigLIP; "
                f"{model_info.name} is of type {model_info.model_type}"
            )
        check_candidates(options)
        self._is_siglip = model_info.model_type.startswith("siglip")
        self._encoder_of = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))
        sentences = [hypothesis(options.hypothesis_template, label) for label in options.candidate_labels]
        self._job_texts = self._encode_texts(sentences, options, reuse="job")
        for text in self._job_texts.values():
            if isinstance(text, RowError):
                raise SpecError(f"task.candidate_labels: {text.message}")

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        own_texts = options is None or self._length(options) == self._length(self.options)
        if options is not None:
            check_candidates(options)
        options = options or self.options
        read = [_read(row, options) for row in rows]
        sentences = {
            hypothesis(options.hypothesis_template, label)
            for labels in read
            if not isinstance(labels, RowError)
            for label in labels
        }
        known = self._job_texts if own_texts else {}
        texts = known | self._encode_texts(sorted(sentences - known.keys()), options, reuse="batch")
        return [
            labels if isinstance(labels, RowError) else self._encode_row(row, labels, texts, options)
            for row, labels in zip(rows, read, strict=True)
        ]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        image, texts = outputs[0]["embedding"], np.stack([output["embedding"] for output in outputs[1:]])
        if self.model_info.logit_scale is None:
            raise EngineError(
                f"the logit_scale of {self.model_info.name} was not read from its weights; load it as a CLIP or SigLIP"
            )
        logits = texts @ image * np.float32(self.model_info.logit_scale)
        if self._is_siglip:
            return ranked(carry, sigmoid(logits + np.float32(self.model_info.logit_bias or 0.0)))
        return ranked(carry, softmax(logits))

    def result_type(self) -> pa.DataType:
        return label_scores_type()

    def summarize(self, result: Result) -> Summary:
        return Summary(label=result[0]["label"], score=result[0]["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """ "accuracy" and "macro_f1" of the best label; an index counts in the job's `candidate_labels`.

        Raises DataError for a reference that is no label."""
        return single_label_metrics(results, references, self.options.candidate_labels, closed=False)

    def _encode_row(
        self, row: Row, labels: tuple[str, ...], texts: Mapping[str, Encoded | RowError], options: Any
    ) -> Encoded | RowError:
        items: list[Item] = []
        truncated = any_cut(labels)
        for label in labels:
            text = texts[hypothesis(options.hypothesis_template, label)]
            if isinstance(text, RowError):
                return text
            items += text.items
            truncated |= text.truncated
        try:
            pixels = pixel_values(image_of(row, "image", options), self.processor.image_processor, "image")
        except RowError as error:
            return error
        return Encoded((Item("image", {"pixel_values": pixels}, Features()), *items), labels, truncated)

    def _encode_texts(
        self, sentences: Iterable[str], options: Any, *, reuse: Literal["batch", "job"]
    ) -> dict[str, Encoded | RowError]:
        """Sentence to its one item. Labels of the job stay with the engine for its life, those of rows and requests do
        not: there is no end of them."""
        texts = list(sentences)
        encoder = self._encoder_of(self._length(options))
        encoded: dict[str, Encoded | RowError] = {}
        for text, tokens in zip(texts, encoder.encode(texts), strict=True):
            if isinstance(tokens, RowError):
                encoded[text] = tokens
            else:
                item = Item("text", self._inputs(encoder, tokens, options), Features(), reuse=reuse)
                encoded[text] = Encoded((item,), truncated=tokens.truncated)
        return encoded

    def _inputs(self, encoder: TextEncoder, tokens: Tokens, options: Any) -> dict[str, Array]:
        if not self._is_siglip:
            return encoder.model_inputs(tokens)
        tokenizer = self.processor.tokenizer
        missing = (self._length(options) or _SIGLIP_LENGTH) - len(tokens.ids)
        sides = (missing, 0) if tokenizer.padding_side == "left" else (0, missing)
        return {"input_ids": np.pad(tokens.ids, sides, constant_values=tokenizer.pad_token_id)}

    def _length(self, options: Any) -> int | None:
        limit = effective_max_length(options, self.model_info.max_length)
        return min(limit or _SIGLIP_LENGTH, _SIGLIP_LENGTH) if self._is_siglip else limit


def _read(row: Row, options: Any) -> tuple[str, ...] | RowError:
    try:
        return candidates_of(row, options)
    except RowError as error:
        return error
