"""Bodies of the tasks that write text. Knows their parameters, TGI's (text-generation-inference) and those of
Transformers' `generate`; not answers, not models.

Whether a text is sampled: `do_sample` says it. Left out, whatever only makes sense with sampling asks for it, as in
TGI; a temperature that is not given is then 1. Where nothing is sampled, settings of sampling have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hfray.serving.hf.call import Limits
from hfray.serving.hf.fields import BadParameter, Body, Count, Parameters, at_most
from hfray.serving.hf.texts import TextBody
from hfray.spec.fields import NAME_PATTERN

Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=4)]
_SAMPLING = ("top_k", "top_p", "min_p")


class Sampling(Parameters):
    """Of every task that writes text."""

    names: ClassVar[Mapping[str, str]] = {
        "max_new_tokens": "max_new_tokens",
        "min_new_tokens": "min_new_tokens",
        "repetition_penalty": "repetition_penalty",
        "no_repeat_ngram_size": "no_repeat_ngram_size",
        "num_return_sequences": "num_return_sequences",
        "seed": "seed",
    }
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "epsilon_cutoff": (0,),
        "eta_cutoff": (0,),
        "penalty_alpha": (0,),
        "num_beam_groups": (1,),
        "max_time": (),
    }
    instead: ClassVar[Mapping[str, str]] = {"max_time": "leave it out, the endpoint has a deadline of its own"}
    max_new_tokens: Count | None = None
    """Most tokens to write."""
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    """Fewest tokens to write."""
    do_sample: bool | None = None
    """Whether tokens are drawn; false takes the likeliest."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """Below 1 sharpens the draw; 0 takes the likeliest token."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Draw among this many likeliest tokens; 0: among all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw among the likeliest tokens that together reach this probability."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draw among tokens with at least this share of the likeliest one's probability."""
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only 1 where tokens are drawn."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=1024)] | None = None
    num_return_sequences: Count | None = None
    """Texts for each input."""
    seed: Annotated[int, Field(ge=0)] | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    penalty_alpha: float | None = None
    num_beam_groups: int | None = None
    max_time: float | None = None
    use_cache: bool | None = None
    """Without effect on the text."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        return self.options_of(self.given(), limits)

    def options_of(self, given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        """The options that given parameters mean. Raises BadParameter."""
        at_most(given, "max_new_tokens", limits.max_new_tokens)
        at_most(given, "min_new_tokens", limits.max_new_tokens)
        at_most(given, "num_return_sequences", limits.max_sequences)
        found = {option: given[name] for name, option in self.names.items() if name in given}
        return found | _sampled(given)


def _sampled(given: Mapping[str, Any]) -> dict[str, Any]:
    temperature, do_sample = given.get("temperature"), given.get("do_sample")
    if do_sample and temperature == 0:
        raise BadParameter(
            "is 0, which takes the likeliest token, beside do_sample: true; keep one", name="temperature"
        )
    if do_sample is False or temperature == 0:
        return {"temperature": 0.0}
    shaping = {name: value for name in _SAMPLING if (value := given.get(name)) is not None}
    typical = given.get("typical_p", 1.0) < 1
    if temperature is None and (do_sample or typical or _shapes(shaping)):
        temperature = 1.0
    if temperature is not None and typical:
        raise BadParameter("cannot be followed here; leave it out, or give top_p", name="typical_p")
    return shaping if temperature is None else {"temperature": float(temperature), **shaping}


def _shapes(shaping: Mapping[str, Any]) -> bool:
    return bool(shaping.get("top_k") or shaping.get("top_p", 1) < 1 or shaping.get("min_p"))


class Beams(Sampling):
    """Of the tasks for encoder-decoder models."""

    names: ClassVar[Mapping[str, str]] = {
        **Sampling.names,
        "num_beams": "num_beams",
        "length_penalty": "length_penalty",
        "early_stopping": "early_stopping",
    }
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {**Sampling.only, "early_stopping": (True, False)}
    max_length: Annotated[int, Field(ge=2)] | None = None
    """As `max_new_tokens`, but it counts the token that the decoder starts with."""
    min_length: Annotated[int, Field(ge=0)] | None = None
    """As `min_new_tokens`, likewise."""
    num_beams: Count | None = None
    length_penalty: Annotated[float, Field(ge=-20, le=20)] | None = None
    early_stopping: bool | Literal["never"] | None = None

    def options_of(self, given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        at_most(given, "num_beams", limits.max_beams)
        at_most(given, "max_length", limits.max_new_tokens + 1)
        at_most(given, "min_length", limits.max_new_tokens + 1)
        found = super().options_of(given, limits)
        for name, option, least in (("max_length", "max_new_tokens", 1), ("min_length", "min_new_tokens", 0)):
            if name in given:
                found.setdefault(option, max(given[name] - 1, least))  # the new tokens alone take precedence
        if found.get("num_beams", 1) > 1 and found.get("temperature"):
            raise BadParameter("above 1 needs do_sample: false; beam search draws nothing", name="num_beams")
        return found


class Seq2SeqParameters(Beams):
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Beams.only,
        "clean_up_tokenization_spaces": (False,),
        "truncation": ("longest_first", "only_first"),
    }
    clean_up_tokenization_spaces: bool | None = None
    """Texts are as the model wrote them."""
    truncation: Literal["do_not_truncate", "longest_first", "only_first", "only_second"] | None = None
    """Longer texts than the model takes are cut."""
    generate_parameters: Beams | None = None
    """The same parameters as beside it."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        given = self.given()
        nested = given.pop("generate_parameters", None)
        if nested is None:
            return self.options_of(given, limits)
        for name in nested.given().keys() & given.keys():
            raise BadParameter("is given twice, also in generate_parameters", name=name)
        return self.options_of({**given, **nested.given()}, limits)


class TranslationParameters(Seq2SeqParameters):
    names: ClassVar[Mapping[str, str]] = {
        **Seq2SeqParameters.names,
        "src_lang": "source_language",
        "tgt_lang": "target_language",
    }
    src_lang: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The language of the text, in the model's words."""
    tgt_lang: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The language to translate to, likewise."""


class SummarizationBody(TextBody):
    parameters: Seq2SeqParameters | None = None


class Text2TextBody(SummarizationBody):
    """InferenceClient asks these models through `text_generation`, which always says whether it wants a stream."""

    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {"stream": (False,)}
    stream: bool | None = None


class TranslationBody(TextBody):
    parameters: TranslationParameters | None = None


class TextGenerationParameters(Sampling):
    names: ClassVar[Mapping[str, str]] = {**Sampling.names, "return_full_text": "return_full_text"}
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Sampling.only,
        "best_of": (1,),
        "decoder_input_details": (False,),
        "frequency_penalty": (0,),
        "grammar": (),
        "watermark": (False,),
        "num_beams": (1,),
        "clean_up_tokenization_spaces": (False,),
        "max_length": (),
        "min_length": (),
    }
    instead: ClassVar[Mapping[str, str]] = {
        **Sampling.instead,
        "frequency_penalty": "leave it out, or give repetition_penalty",
        "best_of": "leave it out, or give num_return_sequences",
        "max_length": "give max_new_tokens, which does not count the prompt",
        "min_length": "give min_new_tokens, which does not count the prompt",
    }
    adapter_id: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    """One of the endpoint's adapters, by its name."""
    details: bool | None = None
    """Whether the answer tells how it ended, and its tokens."""
    return_full_text: bool | None = None
    """Whether the answer begins with the prompt."""
    stop: Stop | None = None
    """Texts that end the answer; they are not part of it."""
    stop_sequences: Stop | None = None
    """An older name of `stop`."""
    top_n_tokens: Annotated[int, Field(ge=1, le=20)] | None = None
    """With details: how many of the likeliest tokens are told at each place."""
    truncate: Annotated[int, Field(ge=4)] | None = None
    """Most tokens of the prompt; a longer one loses its beginning."""
    best_of: int | None = None
    decoder_input_details: bool | None = None
    frequency_penalty: float | None = None
    grammar: Any = None
    watermark: bool | None = None
    num_beams: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    clean_up_tokenization_spaces: bool | None = None

    def options_of(self, given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        found = super().options_of(given, limits)
        if "stop" in given and "stop_sequences" in given:
            raise BadParameter("is given twice, also as stop", name="stop_sequences")
        stop = given.get("stop", given.get("stop_sequences"))
        if stop is not None:
            found["stop"] = tuple(stop)
        if "truncate" in given:
            found |= {"max_length": given["truncate"], "truncation": "left"}
        if given.get("details"):
            found |= {"details": True, "logprobs": given.get("top_n_tokens", 0)}
        return found

    def form(self) -> dict[str, Any]:
        names = ("details", "top_n_tokens", "return_full_text", "seed", "stop")
        given = self.given()
        if "stop_sequences" in given:
            given["stop"] = given["stop_sequences"]
        return {name: given[name] for name in names if name in given}


class TextGenerationBody(Body):
    """`inputs`: one prompt or several; one alone may be streamed."""

    inputs: str | Annotated[list[str], Field(min_length=1)]
    parameters: TextGenerationParameters | None = None
    stream: bool | None = None

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        many = isinstance(self.inputs, list)
        return [{"prompt": text} for text in (self.inputs if isinstance(self.inputs, list) else [self.inputs])], many
