"""text2text-generation: whatever an encoder-decoder model was trained to write. Knows only the prefix.

Transformers 5 has no such pipeline; texts equal those of 4.57's with the same settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from hfray.tasks.generation import Seq2SeqTask, exact_match, first_texts, text_references
from hfray.tasks.generation_options import Seq2SeqOptions, generation_params
from hfray.types import GenerationParams, Result


class Text2TextGeneration(Seq2SeqTask):
    name: ClassVar[str] = "text2text-generation"
    summary: ClassVar[str] = "text from text by an encoder-decoder model"
    metric_names = ("exact_match", "rougeL")
    training_mode: ClassVar[str | None] = "seq2seq"

    class Options(Seq2SeqOptions):
        name: Literal["text2text-generation"] = "text2text-generation"

    def settle(self, options: Any) -> tuple[str, GenerationParams]:
        prefix = self.model_info.generation.get("prefix") if options.prefix is None else options.prefix
        return prefix or "", generation_params(options, self.model_info, self.processor.tokenizer)

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """exact_match (share, white space at the ends apart) and rougeL (F-measure, 0..1)."""
        from hfray.tasks.metrics import rouge

        return {
            "exact_match": exact_match(results, references),
            "rougeL": rouge(first_texts(results), text_references(references))["rougeL"],
        }
