"""Texts to embedding items: pooling, prompts and prefixes. Knows sentence-transformers' rules; no vectors.

Prompts work as in `SentenceTransformer.encode`: the stored text goes before each text, and where the model wants the
prompt left out of pooling (`include_prompt: false`), the tokens up to its end are counted for `Pool.skip`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, cast

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, TaskOptions
from hfray.tasks.text import TextEncoder, effective_max_length
from hfray.types import Encoded, Item, Pool

PoolMode = Literal["mean", "cls", "max", "last", "mean_sqrt_len", "none"]


class PromptOptions(TaskOptions):
    """Options of what goes before each text."""

    prefix: str = ""
    """Text put before every text ("query: "), in place of the model's default prompt."""
    prompt_name: str | None = None
    """A prompt stored with the model, by name; default: the model's default prompt, if any; "" for none at all."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    num_tokens: int
    """Tokens from the first (special ones included) to the prompt's last that pooling leaves out; 0 for none."""


class TextEmbedder:
    """Makes Pool items of texts. Thread-safe."""

    def __init__(self, processor: Processor, model_info: ModelInfo) -> None:
        self._info = model_info
        self._special_ids = frozenset(processor.tokenizer.all_special_ids)
        self._encoder = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))

    def prompt(self, options: Any) -> Prompt:
        """What goes before each text under these options. Raises SpecError for an unknown prompt name."""
        text = self._prompt_text(options)
        if not text or self._info.include_prompt:
            return Prompt(text, 0)
        tokens = self._encoder(effective_max_length(options, self._info.max_length)).encode([text])[0]
        if isinstance(tokens, RowError):
            raise SpecError(f"the prompt {text!r} cannot be tokenised: {tokens.message}")
        num_tokens = len(tokens.ids)
        ends_special = num_tokens > 0 and int(tokens.ids[-1]) in self._special_ids
        return Prompt(text, num_tokens - ends_special)

    def pooling(self, mode: str) -> PoolMode:
        """An option's pooling mode with "auto" settled: the model's own, else mean."""
        return cast(PoolMode, (self._info.pooling or "mean") if mode == "auto" else mode)

    def encode(
        self, texts: Sequence[str], options: Any, prompt: Prompt, *, mode: PoolMode, normalize: bool
    ) -> list[Encoded | RowError]:
        """One item per text, in order."""
        encoder = self._encoder(effective_max_length(options, self._info.max_length))
        reduce = Pool(mode, normalize, 0 if mode == "none" else prompt.num_tokens)
        encoded: list[Encoded | RowError] = []
        for tokens in encoder.encode([prompt.text + text for text in texts]):
            if isinstance(tokens, RowError):
                encoded.append(tokens)
            elif len(tokens.ids) <= reduce.skip:
                encoded.append(RowError("text has no tokens besides the prompt's", type="EmptyText"))
            else:
                item = Item("text", encoder.model_inputs(tokens), reduce)
                encoded.append(Encoded((item,), truncated=tokens.truncated))
        return encoded

    def _prompt_text(self, options: Any) -> str:
        prompts, name = self._info.prompts, options.prompt_name
        if name is None:
            return str(options.prefix or self._info.default_prompt or "")
        if options.prefix:
            raise SpecError("task.prefix and task.prompt_name both say what goes before each text; keep one")
        if name and name not in prompts:
            near = get_close_matches(name, prompts, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            known = ", ".join(map(repr, prompts)) or "none"
            raise SpecError(
                f"task.prompt_name {name!r} is not stored with model {self._info.name}; {hint}stored prompts: {known}"
            )
        return str(prompts[name]) if name else ""
