"""summarization: a long text to a short one. Knows the prefix that T5 wants; the rest is `generation`.

Transformers 5 has no such pipeline; texts equal those of 4.57's with the same settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from hfray.tasks.generation import Seq2SeqTask, first_texts, text_references
from hfray.tasks.generation_options import Seq2SeqOptions, generation_params, task_specific
from hfray.types import GenerationParams, Result


class Summarization(Seq2SeqTask):
    name: ClassVar[str] = "summarization"
    summary: ClassVar[str] = "a shorter text by an encoder-decoder model"
    metric_names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    training_mode: ClassVar[str | None] = "seq2seq"

    class Options(Seq2SeqOptions):
        name: Literal["summarization"] = "summarization"

    def settle(self, options: Any) -> tuple[str, GenerationParams]:
        own = task_specific(self.model_info, "summarization")
        prefix = options.prefix
        if prefix is None:
            prefix = own.get("prefix") or self.model_info.generation.get("prefix") or ""
        return prefix, generation_params(options, self.model_info, self.processor.tokenizer, task_defaults=own)

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """rouge1, rouge2, rougeL, rougeLsum (F-measures, 0..1) with Porter stemming, as summaries are reported."""
        from hfray.tasks.metrics import rouge

        return rouge(first_texts(results), text_references(references), use_stemmer=True)
