"""Static-batch generation against `model.generate`, one prompt at a time, in float32."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    MinPLogitsWarper,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    T5Config,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.generate import cost_tokens, generate_batch, generation_key
from hfray.engines.sampling import GumbelNoise
from hfray.types import Generated, GenerationParams, Item
from tests.models.support import loaded
from tests.tasks.support import tiny_model

VOCABULARY = 96
EOS, PAD = 1, 0
LENGTHS = (3, 11, 1, 19)
CAUSAL = ("gpt2", "llama")
SEQ2SEQ = ("t5", "marian", "bart")

_CONFIGS: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=64, n_layer=2, n_head=4,
                               initializer_range=0.3, bos_token_id=2, eos_token_id=EOS, pad_token_id=PAD),
    "llama": lambda: LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                 num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
                                 bos_token_id=2, eos_token_id=EOS, pad_token_id=PAD),
    "t5": lambda: T5Config(vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
                           initializer_factor=3.0, decoder_start_token_id=PAD, eos_token_id=EOS, pad_token_id=PAD),
    "marian": lambda: MarianConfig(vocab_size=VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
                                   encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
                                   decoder_ffn_dim=128, max_position_embeddings=128, init_std=0.3,
                                   decoder_start_token_id=PAD, eos_token_id=EOS, pad_token_id=PAD,
                                   tie_word_embeddings=False, forced_eos_token_id=EOS),
    "bart": lambda: BartConfig(vocab_size=VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
                               encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
                               decoder_ffn_dim=128, max_position_embeddings=128, init_std=0.3, bos_token_id=2,
                               decoder_start_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD,
                               forced_bos_token_id=None, tie_word_embeddings=False, forced_eos_token_id=EOS),
}  # fmt: skip
_MODELS: dict[str, PreTrainedModel] = {}


def model_of(name: str) -> PreTrainedModel:
    if name not in _MODELS:
        auto = "AutoModelForCausalLM" if name in CAUSAL else "AutoModelForSeq2SeqLM"
        _MODELS[name] = tiny_model(auto, _CONFIGS[name]())
        if name == "marian":  # where such models have it: in generation_config.json
            _MODELS[name].generation_config.bad_words_ids = [[PAD]]
    return _MODELS[name]


def prompts(lengths: Sequence[int] = LENGTHS) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(7)
    return [generator.integers(3, VOCABULARY, length) for length in lengths]


def items_of(name: str, params: GenerationParams, ids: Sequence[Any] | None = None) -> list[Item]:
    kind: Any = "causal" if name in CAUSAL else "seq2seq"
    return [
        Item(kind, {"input_ids": each}, Generated(), replace(params, seed=seed))
        for seed, each in enumerate(prompts() if ids is None else ids)
    ]


def alone(name: str, ids: Any, **settings: Any) -> list[int]:
    """New tokens by Transformers itself, one prompt, no padding."""
    model = model_of(name)
    ids = torch.tensor(ids)[None]
    settings = {"eos_token_id": EOS, "do_sample": False, **settings}
    sequence = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0]
    return sequence[ids.shape[1] if name in CAUSAL else 1 :].tolist()


def tokens_of(outputs: Sequence[dict[str, Any]]) -> list[list[int]]:
    return [output["tokens"].tolist() for output in outputs]


@pytest.mark.parametrize("name", CAUSAL + SEQ2SEQ)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 3, "repetition_penalty": 0.8},
        {"min_new_tokens": 7},
        {"num_beams": 4},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_equals_generate_one_at_a_time(name: str, settings: dict[str, Any]) -> None:
    params = GenerationParams(max_new_tokens=8, eos_token_ids=(EOS,), **settings)
    wanted = [alone(name, ids, max_new_tokens=8, **settings) for ids in prompts()]
    assert tokens_of(generate_batch(model_of(name), items_of(name, params), "cpu")) == wanted


@pytest.mark.parametrize("name", CAUSAL + SEQ2SEQ)
def test_any_composition_of_the_batch_gives_the_same_tokens(name: str) -> None:
    for temperature in (0.0, 1.0):
        params = GenerationParams(max_new_tokens=7, temperature=temperature, eos_token_ids=(EOS,), top_p=0.95)
        items = items_of(name, params)
        wanted = [tokens_of(generate_batch(model_of(name), [item], "cpu"))[0] for item in items]
        for order in ((3, 2, 1, 0), (1, 1, 2)):
            batch = [items[index] for index in order]
            assert tokens_of(generate_batch(model_of(name), batch, "cpu")) == [wanted[index] for index in order]


def test_outputs_are_int64_without_prompt_or_padding_and_say_why_they_ended() -> None:
    everything = tuple(range(VOCABULARY // 2))  # half the vocabulary ends a text: rows end at different steps
    params = GenerationParams(max_new_tokens=12, temperature=5.0, eos_token_ids=everything)
    outputs = generate_batch(model_of("llama"), items_of("llama", params, prompts((4,) * 24)), "cpu")
    lengths = {len(output["tokens"]) for output in outputs}
    assert len(lengths) > 3
    for output in outputs:
        tokens = output["tokens"]
        assert tokens.dtype == np.int64
        assert 1 <= len(tokens) <= 12
        assert not np.isin(tokens[:-1], everything).any()
        assert output["finish"] == ("stop" if tokens[-1] in everything else "length")
    cut = generate_batch(model_of("llama"), items_of("llama", replace(params, eos_token_ids=())), "cpu")
    assert {(len(output["tokens"]), output["finish"]) for output in cut} == {(12, "length")}


def test_forced_language_and_forced_end_of_the_model() -> None:
    params = GenerationParams(max_new_tokens=6, eos_token_ids=(EOS,), forced_bos_token_id=55)
    for item_tokens, ids in zip(
        tokens_of(generate_batch(model_of("bart"), items_of("bart", params), "cpu")), prompts(), strict=True
    ):
        assert item_tokens[0] == 55
        assert item_tokens == alone("bart", ids, max_new_tokens=6, forced_bos_token_id=55)


def test_tokens_that_the_model_must_not_produce() -> None:
    model = model_of("gpt2")
    own = model.generation_config
    free = tokens_of(generate_batch(model, items_of("gpt2", GenerationParams(max_new_tokens=8)), "cpu"))
    first = sorted({tokens[0] for tokens in free})
    model.generation_config = GenerationConfig(
        suppress_tokens=first[:1], begin_suppress_tokens=first[1:2], bad_words_ids=[[first[2]]], pad_token_id=PAD
    )
    try:
        barred = tokens_of(generate_batch(model, items_of("gpt2", GenerationParams(max_new_tokens=8)), "cpu"))
    finally:
        model.generation_config = own
    assert not {first[0], first[2]} & {token for tokens in barred for token in tokens}
    assert first[1] not in {tokens[0] for tokens in barred}


def test_the_models_own_generation_settings_do_not_leak_in() -> None:
    model = model_of("llama")
    params = GenerationParams(max_new_tokens=10, eos_token_ids=(EOS,))
    wanted = tokens_of(generate_batch(model, items_of("llama", params), "cpu"))
    own = model.generation_config
    surprising = GenerationConfig(
        do_sample=True, temperature=9.0, top_k=3, num_beams=5, repetition_penalty=3.0, max_length=4, min_length=30,
        stop_strings=["a"], exponential_decay_length_penalty=(1, 1.1), guidance_scale=2.0, eos_token_id=5,
        pad_token_id=PAD,
    )  # fmt: skip
    model.generation_config = surprising
    try:
        assert tokens_of(generate_batch(model, items_of("llama", params), "cpu")) == wanted
        assert model.generation_config is surprising
    finally:
        model.generation_config = own


def test_equal_seeds_give_equal_texts_and_other_seeds_others() -> None:
    params = GenerationParams(max_new_tokens=12, temperature=1.5, eos_token_ids=(EOS,))
    item = items_of("gpt2", params)[1]
    seeded = [replace(item, generation=replace(params, seed=seed)) for seed in (5, 5, 6, 2**63 - 1)]
    first, second, third, fourth = tokens_of(generate_batch(model_of("gpt2"), seeded, "cpu"))
    assert first == second
    assert len({tuple(first), tuple(third), tuple(fourth)}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5, "top_k": 20, "repetition_penalty": 1.6},
        {"temperature": 2.0, "top_p": 0.8, "min_p": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", ["static", "continuous"])
@pytest.mark.slow
def test_a_step_is_distributed_as_the_softmax_of_transformers_warpers(engine: str, settings: dict[str, Any]) -> None:
    model = model_of("gpt2")
    ids = prompts()[1]
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor(ids)[None]).logits[:, -1].float()
    if "repetition_penalty" in settings:
        scores = RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"])(torch.tensor(ids)[None], scores)
    scores = TemperatureLogitsWarper(settings["temperature"])(None, scores)
    if "top_k" in settings:
        scores = TopKLogitsWarper(settings["top_k"])(None, scores)
    if "top_p" in settings:
        scores = TopPLogitsWarper(settings["top_p"])(None, scores)
        scores = MinPLogitsWarper(settings["min_p"])(None, scores)
    wanted = scores.softmax(-1)[0].double().numpy()
    draws = 4000
    params = GenerationParams(max_new_tokens=1, **settings)
    items = [Item("causal", {"input_ids": ids}, Generated(), replace(params, seed=seed)) for seed in range(draws)]
    if engine == "static":
        outputs = [each for at in range(0, draws, 500) for each in generate_batch(model, items[at : at + 500], "cpu")]
    else:
        running = ContinuousEngine(loaded(copy.deepcopy(model)), block_tokens=4, cache_bytes=2**20)
        outputs = running.run(items)
        running.close()
    counts = Counter(int(output["tokens"][0]) for output in outputs)
    assert set(counts) <= set(np.flatnonzero(wanted).tolist())
    often = wanted * draws >= 5
    found = [
        *(counts[token] for token in np.flatnonzero(often)),
        sum(counts[token] for token in np.flatnonzero(~often)),
    ]
    expected = np.array([*(wanted[often] * draws), wanted[~often].sum() * draws])
    kept = expected > 0
    statistic = ((np.array(found)[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)  # mean and standard deviation of chi-square


def test_noise_is_finite_and_never_lifts_a_token_that_is_ruled_out() -> None:
    scores = torch.full((4, 50_000), float("-inf"))
    scores[:, 123] = 0.0
    noisy = GumbelNoise([1, 2, 3, 4], "cpu")(None, scores)
    assert not noisy.isnan().any()
    assert noisy.argmax(-1).tolist() == [123] * 4


@dataclass(frozen=True)
class EndsWith:
    """A stop matcher at the level of ids."""

    wanted: tuple[int, ...]

    def __call__(self, tokens: Sequence[int]) -> bool:
        return tuple(tokens[-len(self.wanted) :]) == self.wanted


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_stop_ends_its_row_early_and_the_others_go_on(name: str) -> None:
    params = GenerationParams(max_new_tokens=12, eos_token_ids=(EOS,), temperature=1.5)
    items = items_of(name, params)
    free = tokens_of(generate_batch(model_of(name), items, "cpu"))
    row = max(range(len(free)), key=lambda index: len(free[index]))
    assert len(free[row]) > 4
    matcher = EndsWith(tuple(free[row][1:3]))
    stopped = [replace(item, generation=replace(item.generation, stop=matcher)) for item in items]
    outputs = generate_batch(model_of(name), [*stopped[row : row + 1], *items], "cpu")
    assert outputs[0]["tokens"].tolist() == free[row][:3]
    assert outputs[0]["finish"] == "stop"
    assert tokens_of(outputs[1:]) == free
    without_eos = replace(items[row], generation=replace(stopped[row].generation, eos_token_ids=(), seed=row))
    (output,) = generate_batch(model_of(name), [without_eos], "cpu")
    assert output["tokens"].tolist() == free[row][:3]


@contextmanager
def rows_of_steps(model: PreTrainedModel) -> Iterator[list[int]]:
    """How many texts each step of the decoder computes."""
    found: list[int] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        found.append(len(kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]))

    handle = model.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize(
    "settings",
    [{"logprobs": 2}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 3}],
    ids=["scores", "constraints"],
)
def test_texts_of_an_encoder_decoder_leave_when_they_have_ended(name: str, settings: dict[str, Any]) -> None:
    model = model_of(name)
    many = tuple(range(3, 13))  # a tenth of the vocabulary ends a text
    params = GenerationParams(max_new_tokens=40, temperature=5.0, eos_token_ids=many, **settings)
    items = items_of(name, params, prompts(tuple(range(3, 19))))
    plain = generate_batch(model, items, "cpu")
    row = int(np.argmax([len(each["tokens"]) for each in plain]))
    stop = EndsWith(tuple(plain[row]["tokens"][-3:-1].tolist()))  # found late, when others have left
    items[row] = replace(items[row], generation=replace(items[row].generation, stop=stop))
    wanted = [generate_batch(model, [item], "cpu")[0] for item in items]
    with rows_of_steps(model) as rows:
        outputs = generate_batch(model, items, "cpu")
    lengths = [len(each["tokens"]) for each in outputs]
    assert lengths[row] == len(plain[row]["tokens"]) - 1
    assert tokens_of(outputs) == tokens_of(wanted)
    assert [each["finish"] for each in outputs] == [each["finish"] for each in wanted]
    for output, alone in zip(outputs, wanted, strict=True):
        for key in output.keys() - {"tokens", "finish"}:
            np.testing.assert_allclose(output[key], alone[key], atol=1e-3)
            assert len(output[key]) == len(output["tokens"])
    assert len(rows) == max(lengths)
    assert rows[0] == len(items) > rows[-1]
    assert rows == sorted(rows, reverse=True)
    assert sum(rows) < 0.75 * len(items) * max(lengths)
    assert sum(rows) >= sum(lengths)


def test_a_stop_ends_beams() -> None:
    params = GenerationParams(max_new_tokens=12, eos_token_ids=(EOS,), num_beams=4)
    items = items_of("bart", params)
    free = tokens_of(generate_batch(model_of("bart"), items, "cpu"))
    stopped = [
        replace(item, generation=replace(params, stop=EndsWith(tuple(tokens[1:2]))))
        for item, tokens in zip(items, free, strict=True)
    ]
    outputs = generate_batch(model_of("bart"), stopped, "cpu")
    for item, output in zip(stopped, outputs, strict=True):
        tokens = output["tokens"].tolist()
        assert output["finish"] == "stop"
        stop = item.generation.stop if item.generation is not None else None
        assert stop is not None
        assert tokens[-1] == EOS or stop(tokens)
        assert not any(stop(tokens[:end]) for end in range(1, len(tokens)))


def test_key_and_cost() -> None:
    params = GenerationParams(max_new_tokens=10, num_beams=3)
    assert generation_key(params) == generation_key(replace(params, seed=9, stop=EndsWith((1,))))
    assert generation_key(params) != generation_key(replace(params, max_new_tokens=11))
    (item,) = items_of("t5", params, prompts((5,)))
    assert cost_tokens(item) == (5 + 10) * 3


def test_a_mixed_batch_is_refused() -> None:
    (one,) = items_of("gpt2", GenerationParams(max_new_tokens=2), prompts((5,)))
    (other,) = items_of("gpt2", GenerationParams(max_new_tokens=3), prompts((5,)))
    with pytest.raises(ValueError, match="generation_key"):
        generate_batch(model_of("gpt2"), [one, other], "cpu")
    with pytest.raises(ValueError, match="generation parameters"):
        generate_batch(model_of("gpt2"), [replace(one, generation=None)], "cpu")
    assert generate_batch(model_of("gpt2"), [], "cpu") == []
