"""translation: a text into another language. Knows how each family of models is told the languages.

- Multilingual models with language codes (mBART, NLLB, M2M100): the tokenizer marks the source, the first generated
  token is forced to be the target's code.
- Marian: the pair is in the weights; a multilingual target is chosen by a token such as ">>fra<<" before the text.
- T5: a sentence, "translate English to German: ".

Transformers 5 has no such pipeline; texts equal those of 4.57's with the same settings.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.generation import Seq2SeqTask, first_texts, text_references
from hfray.tasks.generation_options import Seq2SeqOptions, generation_params, task_specific
from hfray.tasks.languages import (
    examples,
    known_code,
    language,
    language_codes,
    marian_codes,
    marian_prefix,
    sentence_prefix,
)
from hfray.tasks.text import TextEncoder, Tokens, effective_max_length
from hfray.types import GenerationParams, Result

_T5 = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})


class Translation(Seq2SeqTask):
    name: ClassVar[str] = "translation"
    summary: ClassVar[str] = "a text in another language"
    metric_names = ("bleu", "chrf")
    training_mode: ClassVar[str | None] = "seq2seq"

    class Options(Seq2SeqOptions):
        name: Literal["translation"] = "translation"
        source_language: str | None = Field(default=None, max_length=64)
        """In the model's words: "en_XX" (mBART), "eng_Latn" (NLLB), "en" (M2M100), "en" or "English" (T5)."""
        target_language: str | None = Field(default=None, max_length=64)
        """Likewise; for a multilingual Marian model the code in its token, such as "fra" for ">>fra<<"."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        self._codes = language_codes(processor.tokenizer)
        self._lock = threading.Lock()
        self._source_encoder = lru_cache(maxsize=8)(self._make_source_encoder)
        super().__init__(options, processor, model_info)

    def settle(self, options: Any) -> tuple[str, GenerationParams]:
        tokenizer = self.processor.tokenizer
        forced: int | None = None
        own: Mapping[str, Any] = {}
        if self._codes:
            prefix = ""
            forced = self._target_token(options)
        elif (marian := marian_codes(tokenizer)) is not None:
            name = self.model_info.name
            prefix = marian_prefix(tokenizer, marian, options.target_language, "task.target_language", name)
        elif self.model_info.model_type in _T5 or self._pairs():
            prefix, own = self._sentence(options)
        elif options.source_language or options.target_language:
            raise SpecError(
                f"{self.model_info.name} ({self.model_info.model_type}) has no language codes: leave out "
                "task.source_language and task.target_language, or set task.prefix"
            )
        else:
            prefix = self.model_info.generation.get("prefix") or ""
        if options.prefix is not None:
            prefix = options.prefix
        params = generation_params(options, self.model_info, tokenizer, task_defaults=own, forced_bos_token_id=forced)
        return prefix, params

    def tokenize(self, texts: Sequence[str], options: Any) -> list[Tokens | RowError]:
        if not self._codes:
            return super().tokenize(texts, options)
        # The source language is a state of the tokenizer: a fast one is cloned with it, a slow one is used under lock.
        with self._lock:
            tokenizer = self.processor.tokenizer
            limit = effective_max_length(options, self.model_info.max_length)
            encoder = self._source_encoder(options.source_language, limit)
            if getattr(tokenizer, "backend_tokenizer", None) is None:
                tokenizer.src_lang = options.source_language
            return encoder.encode(texts)

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """Corpus bleu and chrf (percent), by sacrebleu; Chinese targets are split into characters for bleu."""
        from hfray.tasks.metrics import bleu_and_chrf

        target = (self.options.target_language or "").lower()
        tokenize = "zh" if target.startswith(("zh", "chinese", "cmn")) else "13a"
        return bleu_and_chrf(first_texts(results), text_references(references), tokenize=tokenize)

    def _make_source_encoder(self, source: str, limit: int | None) -> TextEncoder:
        self.processor.tokenizer.src_lang = source
        return TextEncoder(self.processor.tokenizer, limit)

    def _target_token(self, options: Any) -> int | None:
        if options.source_language is None:
            raise SpecError(
                f"{self.model_info.name} translates between many languages: set task.source_language to one of its "
                f"codes, such as {examples(self._codes)}"
            )
        known_code(options.source_language, self._codes, "task.source_language", self.model_info.name)
        if options.target_language is not None:
            target = known_code(options.target_language, self._codes, "task.target_language", self.model_info.name)
            return self._codes[target]
        own = self.model_info.generation
        # A model tuned to one target starts its decoder with that language, or forces it.
        if own.get("forced_bos_token_id") is None and own.get("decoder_start_token_id") not in self._codes.values():
            raise SpecError(
                f"{self.model_info.name} translates into many languages: set task.target_language to one of its codes, "
                f"such as {examples(self._codes)}"
            )
        return None

    def _pairs(self) -> dict[str, Any]:
        specific = self.model_info.generation.get("task_specific_params") or {}
        return {key: value for key, value in specific.items() if key.startswith("translation_")}

    def _sentence(self, options: Any) -> tuple[str, Mapping[str, Any]]:
        if options.source_language is None or options.target_language is None:
            if options.prefix is not None:
                return options.prefix, {}
            pairs = ", ".join(key.removeprefix("translation_") for key in self._pairs())
            raise SpecError(
                f"{self.model_info.name} is told the languages in words: set task.source_language and "
                f"task.target_language, or task.prefix{f' (it knows {pairs})' if pairs else ''}"
            )
        source = language(options.source_language, "task.source_language")
        target = language(options.target_language, "task.target_language")
        own = task_specific(self.model_info, f"translation_{source}_to_{target}")
        return own.get("prefix") or sentence_prefix(source, target), own
