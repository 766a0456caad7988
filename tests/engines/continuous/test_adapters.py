"""Texts of several adapters in one batch, against PEFT's `generate` with each of them alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hfray.engines.batch import BatchEngine
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.errors import ItemError
from hfray.models.lora import AdapterBank
from tests.engines.continuous.support import EOS, bytes_of, item_of, model_of, prompts, tokens_of
from tests.models.lora_support import save_lora, source_of
from tests.models.support import loaded

TARGETS = {
    **{name: ["q_proj", "v_proj", "down_proj"] for name in ("llama", "qwen2", "gemma2")},
    "gpt2": ["c_attn", "c_proj"],
}
NAMES = ("one", "two", None, "three")


@pytest.fixture(scope="module", params=list(TARGETS))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(model's name, folder of adapters, greedy tokens of each prompt with each adapter)."""
    folder = tmp_path_factory.mktemp("adapters")
    models: dict[str | None, Any] = {None: model_of(request.param)}
    for seed, name in enumerate(NAMES):
        if name is not None:
            models[name] = save_lora(
                model_of(request.param), folder / name, seed=seed, r=2 + seed, target_modules=TARGETS[request.param]
            )
    wanted = {(name, number): generate(models[name], ids) for number, ids in enumerate(prompts()[:5]) for name in NAMES}
    return request.param, folder, wanted


@torch.inference_mode()
def generate(model: Any, ids: Any) -> list[int]:
    """No token twice: some of these models would say one over and over."""
    tokens = torch.tensor(ids)[None]
    sequence = model.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, eos_token_id=EOS, max_new_tokens=24,
        no_repeat_ngram_size=1,
    )[0]  # fmt: skip
    return sequence[len(ids) :].tolist()  # type: ignore[no-any-return]


def ready(site: Any, max_loaded: int) -> Any:
    name, folder, _ = site
    found = loaded(copy.deepcopy(model_of(name)))
    sources = {each: source_of(folder / each) for each in NAMES if each is not None}
    found.adapters = AdapterBank(found.model, sources, device="cpu", max_loaded=max_loaded)
    return found


def asked(site: Any) -> list[Any]:
    return [replace(item_of(prompts()[number], no_repeat_ngram_size=1), adapter=name) for name, number in site[2]]


@pytest.mark.parametrize("max_loaded", [1, 2, 3])
def test_greedy_equals_generate_with_adapters_mixed(site: Any, max_loaded: int) -> None:
    """Under preemption, beside each other, loaded as they are wanted."""
    name, _, wanted = site
    model = ready(site, max_loaded)
    engine = ContinuousEngine(model, block_tokens=4, cache_bytes=bytes_of(name, 40), max_step_tokens=19)
    try:
        outputs = engine.run(asked(site))
        assert engine.scheduler.preemptions > 0
    finally:
        engine.close()
    assert tokens_of(outputs) == list(wanted.values())
    assert len({str(each) for each in wanted.values()}) > 15, "the adapters say different things"
    assert model.adapters.loads == 3, "texts of one adapter go together"


def test_the_batch_engine_says_the_same(site: Any) -> None:
    engine = BatchEngine(ready(site, 1))
    try:
        assert tokens_of(engine.run(asked(site))) == list(site[2].values())
    finally:
        engine.close()


def test_an_adapter_that_does_not_fit_fails_its_own_texts(site: Any, tmp_path: Path) -> None:
    wanted = site[2]
    model = ready(site, 3)
    other = copy.deepcopy(model_of("qwen2"))
    save_lora(other, tmp_path / "odd", target_modules=["k_proj", "gate_proj", "q_proj"], r=3)
    config = (tmp_path / "odd" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "odd" / "adapter_model.safetensors").write_bytes(config[:-7])
    model.adapters = AdapterBank(model.model, {"odd": source_of(tmp_path / "odd")}, device="cpu", max_loaded=1)
    engine = ContinuousEngine(model, block_tokens=4, cache_bytes=2**20)
    try:
        good = [item_of(ids, no_repeat_ngram_size=1) for ids in prompts()[:3]]
        bad = [replace(item_of(prompts()[1]), adapter=each) for each in ("odd", "unheard of")]
        outputs = engine.run([*good, *bad])
    finally:
        engine.close()
    assert tokens_of(outputs[:3]) == [wanted[None, number] for number in range(3)]
    assert all(isinstance(each, ItemError) for each in outputs[3:])
    assert "adapter" in str(outputs[3])
