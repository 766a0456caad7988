from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hfray.errors import SpecError
from hfray.tasks.base import ModelInfo
from hfray.tasks.generation_options import GenerationOptions, Seq2SeqOptions, generation_params


class _Tokenizer:
    eos_token_id = 7


def params(options: GenerationOptions, *, task_defaults: Any = None, encoder_decoder: bool = True, **info: Any) -> Any:
    model = ModelInfo(name="tiny", model_type="t5", is_encoder_decoder=encoder_decoder, **info)
    return generation_params(options, model, _Tokenizer(), task_defaults=task_defaults)


def options(**changes: Any) -> Seq2SeqOptions:
    return Seq2SeqOptions(name="summarization", **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 1e-9},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": 1.5},
        {"top_k": -1},
        {"repetition_penalty": 0},
        {"max_new_tokens": 0},
        {"min_new_tokens": 5, "max_new_tokens": 4},
        {"num_return_sequences": 0},
        {"num_return_sequences": 2},
        {"num_beams": 2, "temperature": 1.0},
        {"stop": ["a"] * 5},
        {"stop": [""]},
        {"stop": ["a" * 65]},
        {"seed": -1},
        {"max_tokens": 4},
    ],
    ids=str,
)
def test_options_out_of_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_messages_of_rules_over_several_options() -> None:
    with pytest.raises(ValidationError, match="num_return_sequences above 1 needs a temperature above 0"):
        options(num_return_sequences=2)
    with pytest.raises(ValidationError, match="num_beams above 1 needs temperature 0"):
        options(num_beams=2, temperature=1)
    with pytest.raises(ValidationError, match="min_new_tokens 5 is over max_new_tokens 4"):
        options(min_new_tokens=5, max_new_tokens=4)


def test_greedy_by_default_and_without_traces_of_sampling() -> None:
    found = params(options(top_k=5, top_p=0.5, min_p=0.1, seed=3))
    assert found.deterministic
    assert (found.top_k, found.top_p, found.min_p) == (0, 1.0, 0.0)
    assert (found.max_new_tokens, found.min_new_tokens, found.num_beams, found.seed) == (256, 0, 1, 3)
    assert found.eos_token_ids == (7,)
    assert found.stop is None


def test_the_models_own_settings_fill_what_the_job_leaves_open() -> None:
    own = {
        "eos_token_id": [1, 2], "max_length": 142, "min_length": 56, "num_beams": 4, "length_penalty": 2.0,
        "early_stopping": True, "no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "repetition_penalty": 1.3,
    }  # fmt: skip
    found = params(options(), generation=own)
    assert (found.max_new_tokens, found.min_new_tokens) == (141, 55)  # without the decoder's start token
    assert (found.num_beams, found.length_penalty, found.early_stopping) == (4, 2.0, True)
    assert (found.no_repeat_ngram_size, found.repetition_penalty) == (3, 1.3)
    assert (found.eos_token_ids, found.forced_bos_token_id) == ((1, 2), 0)
    found = params(options(), generation=own, task_defaults={"max_length": 11, "num_beams": 2, "length_penalty": 0.5})
    assert (found.max_new_tokens, found.min_new_tokens) == (10, 10)
    assert (found.num_beams, found.length_penalty) == (2, 0.5)
    found = params(options(num_beams=1, max_new_tokens=20, no_repeat_ngram_size=0), generation=own)
    assert (found.num_beams, found.length_penalty, found.early_stopping) == (1, 1.0, False)
    assert (found.max_new_tokens, found.min_new_tokens, found.no_repeat_ngram_size) == (20, 20, 0)
    assert params(options(temperature=0.7), generation=own).num_beams == 1


def test_decoder_only_models_ignore_beams_and_max_length_of_the_model() -> None:
    own = {"max_length": 20, "num_beams": 4, "eos_token_id": 50256, "forced_bos_token_id": 3}
    found = params(GenerationOptions(name="text-generation"), encoder_decoder=False, generation=own, max_length=1024)
    assert (found.max_new_tokens, found.num_beams) == (256, 1)
    assert found.eos_token_ids == (50256,)
    assert found.forced_bos_token_id is None
    small = params(GenerationOptions(name="text-generation"), encoder_decoder=False, max_length=64)
    assert small.max_new_tokens == 32  # the other half is the prompt's


def test_lengths_that_the_model_cannot_do() -> None:
    with pytest.raises(SpecError, match=r"max_new_tokens 600 is too much for tiny: it takes 512 tokens$"):
        params(options(max_new_tokens=600), max_length=512)
    assert params(options(max_new_tokens=512), max_length=512).max_new_tokens == 512
    with pytest.raises(SpecError, match="64 tokens, prompt included"):
        params(GenerationOptions(name="x", max_new_tokens=64), max_length=64, encoder_decoder=False)
    with pytest.raises(SpecError, match=r"min_new_tokens 300 is over the 256 .* set task.max_new_tokens"):
        params(options(min_new_tokens=300))


def test_tokens_that_end_a_text_join_the_models_own() -> None:
    assert params(options(stop_token_ids=[3, 4])).eos_token_ids == (7, 3, 4)
    assert params(options()).eos_token_ids == (7,)
    assert params(options()).logprobs is None
