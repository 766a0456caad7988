"""How generating tasks are asked: their options, settled against a model's own defaults. Knows options and generation
defaults; not rows, not how tokens are produced.

Where the job says nothing about the shape of the search (lengths, beams, penalties), the model's own settings for the
task count, then its general ones, as in Transformers' pipelines. Sampling is the job's choice alone: a model's
`do_sample` is ignored, and `temperature` 0 is greedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from hfray.errors import SpecError
from hfray.tasks.base import ModelInfo, TaskOptions
from hfray.tasks.streaming import StopMatcher
from hfray.types import GenerationParams

DEFAULT_NEW_TOKENS = 256  # what Transformers' text pipelines fall back to


class GenerationOptions(TaskOptions):
    """Options of every generating task."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=131_072)
    """Most tokens to generate; default: the model's own setting, else 256, within the model's limit."""
    min_new_tokens: int | None = Field(default=None, ge=0, le=131_072)
    """Fewest tokens before the end may come; default: the model's own setting, else 0."""
    temperature: float = Field(default=0.0, ge=0, le=100)
    """0 takes the likeliest token (greedy, or beams); above 0 samples, and sharper the lower it is."""
    top_k: int = Field(default=0, ge=0)
    """Sample among this many likeliest tokens; 0: among all. Without effect at temperature 0, as the next two."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the likeliest tokens that together reach this probability."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Sample among tokens with at least this share of the likeliest token's probability."""
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    """Above 1 makes tokens that occurred (prompt included) less likely; default: the model's own setting, else 1."""
    no_repeat_ngram_size: int | None = Field(default=None, ge=0, le=1024)
    """No run of this many tokens occurs twice; 0: off. Default: the model's own setting, else off."""
    num_return_sequences: int = Field(default=1, ge=1, le=128)
    """Texts per row, sampled independently; above 1 the result is a list and `temperature` must be above 0."""
    stop: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=4)
    """Strings that end a text; they and what follows are cut off."""
    stop_token_ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), max_length=16)
    """Tokens that end a text, beside the model's own; a special one is not part of it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Start of the randomness; the same seed gives a row the same text, whatever else is scored beside it."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if 0 < self.temperature < 1e-3:
            raise ValueError(f"temperature {self.temperature} is too close to 0; use 0 for greedy decoding")
        if self.num_return_sequences > 1 and self.temperature == 0:
            raise ValueError("num_return_sequences above 1 needs a temperature above 0: greedy texts would be equal")
        if None not in (self.min_new_tokens, self.max_new_tokens) and self.min_new_tokens > self.max_new_tokens:  # type: ignore[operator]
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is over max_new_tokens {self.max_new_tokens}")
        return self


class Seq2SeqOptions(GenerationOptions):
    """Options of the tasks for encoder-decoder models."""

    prefix: str | None = Field(default=None, max_length=1000)
    """Text put before every input, such as "summarize: "; default: the model's own for the task. "" for none."""
    num_beams: int | None = Field(default=None, ge=1, le=64)
    """Width of beam search (temperature 0 only); 1 is greedy. Default: the model's own setting, else 1."""
    length_penalty: float | None = Field(default=None, ge=-20, le=20)
    """Exponent of the length that divides a beam's score: above 0 favours long texts. Default: the model's, else 1."""
    early_stopping: bool | None = None
    """Whether beam search ends once `num_beams` texts are complete; default: the model's own setting, else no."""

    @model_validator(mode="after")
    def _check_beams(self) -> Self:
        if self.num_beams is not None and self.num_beams > 1 and self.temperature > 0:
            raise ValueError("num_beams above 1 needs temperature 0: beam search does not sample")
        return self


def generation_params(
    options: GenerationOptions,
    model_info: ModelInfo,
    tokenizer: Any,
    *,
    task_defaults: Mapping[str, Any] | None = None,
    forced_bos_token_id: int | None = None,
) -> GenerationParams:
    """The options settled against a model. Raises SpecError for lengths that it cannot do.

    task_defaults: the model's `task_specific_params` for this task; over its general settings, under the options.
    """
    own = {**model_info.generation, **(task_defaults or {})}

    def settle(name: str, default: Any) -> Any:
        value = getattr(options, name, None)
        value = own.get(name) if value is None else value
        return default if value is None else value

    max_new_tokens = _max_new_tokens(options, model_info, own)
    min_new_tokens = _min_new_tokens(options, model_info, own, max_new_tokens)
    sampled = options.temperature > 0
    num_beams = settle("num_beams", 1) if isinstance(options, Seq2SeqOptions) and not sampled else 1
    forced = own.get("forced_bos_token_id") if forced_bos_token_id is None else forced_bos_token_id
    return GenerationParams(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        temperature=float(options.temperature),
        # Settings without effect keep their neutral value, so that rows which differ in them alone share a batch.
        top_k=options.top_k if sampled else 0,
        top_p=float(options.top_p) if sampled else 1.0,
        min_p=float(options.min_p) if sampled else 0.0,
        repetition_penalty=float(settle("repetition_penalty", 1.0)),
        no_repeat_ngram_size=int(settle("no_repeat_ngram_size", 0)),
        num_beams=int(num_beams),
        length_penalty=float(settle("length_penalty", 1.0)) if num_beams > 1 else 1.0,
        early_stopping=settle("early_stopping", False) is True if num_beams > 1 else False,
        eos_token_ids=_eos_token_ids(own.get("eos_token_id"), tokenizer) + options.stop_token_ids,
        forced_bos_token_id=forced if model_info.is_encoder_decoder else None,
        seed=options.seed,
        logprobs=getattr(options, "logprobs", None),
        stop=StopMatcher(tokenizer, options.stop) if options.stop else None,
    )


def _max_new_tokens(options: GenerationOptions, model_info: ModelInfo, own: Mapping[str, Any]) -> int:
    limit = model_info.max_length
    if options.max_new_tokens is not None:
        if limit is not None and options.max_new_tokens >= limit + model_info.is_encoder_decoder:
            room = "" if model_info.is_encoder_decoder else ", prompt included"
            raise SpecError(
                f"task.max_new_tokens {options.max_new_tokens} is too much for {model_info.name}: "
                f"it takes {limit} tokens{room}"
            )
        return options.max_new_tokens
    wanted = own.get("max_new_tokens")
    if wanted is None and model_info.is_encoder_decoder and own.get("max_length") is not None:
        wanted = own["max_length"] - 1  # `max_length` counts the decoder's start token
    wanted = max(1, int(DEFAULT_NEW_TOKENS if wanted is None else wanted))
    if limit is None:
        return wanted
    # A decoder-only model shares its limit between prompt and text.
    return min(wanted, limit if model_info.is_encoder_decoder else max(1, limit // 2))


def _min_new_tokens(
    options: GenerationOptions, model_info: ModelInfo, own: Mapping[str, Any], max_new_tokens: int
) -> int:
    if options.min_new_tokens is not None:
        if options.min_new_tokens > max_new_tokens:
            raise SpecError(
                f"task.min_new_tokens {options.min_new_tokens} is over the {max_new_tokens} tokens that "
                f"{model_info.name} generates at most by default; set task.max_new_tokens"
            )
        return options.min_new_tokens
    wanted = own.get("min_new_tokens")
    if wanted is None and model_info.is_encoder_decoder and own.get("min_length") is not None:
        wanted = own["min_length"] - 1
    return min(max(0, int(wanted or 0)), max_new_tokens)


def _eos_token_ids(stated: Any, tokenizer: Any) -> tuple[int, ...]:
    if stated is None:
        stated = getattr(tokenizer, "eos_token_id", None)
    if stated is None:
        return ()
    return tuple(int(token) for token in stated) if isinstance(stated, Sequence) else (int(stated),)


def most_new_tokens(options: Mapping[str, Any], num_rows: int) -> int:
    """The most tokens that rows may have generated under a task's options, all their texts together."""
    each = options.get("max_new_tokens") or DEFAULT_NEW_TOKENS
    return int(each) * int(options.get("num_return_sequences") or 1) * num_rows


def task_specific(model_info: ModelInfo, key: str) -> Mapping[str, Any]:
    """The model's own settings for one task ("summarization", "translation_en_to_de"); empty without any."""
    settings = (model_info.generation.get("task_specific_params") or {}).get(key)
    return settings if isinstance(settings, Mapping) else {}
