"""One padded batch against direct calls of the same model: CLIP, SigLIP, ViT, poolings with dense layers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfray.engines import forward
from hfray.engines.batch import BatchEngine
from hfray.engines.forward import PATCH_PIXELS, cost_tokens, run_batch
from hfray.types import Features, Item, Logits, MaskScores, NextTokens, Output, Pool, TokenLogits
from tests.models.support import loaded
from tests.tasks.support import bert_config, run_items, tiny_model

torch.set_num_threads(1)

EOS = 49
TEXT = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 16, "eos_token_id": EOS, "bos_token_id": 48, "pad_token_id": 1,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def dual(name: str) -> Any:
    if name == "clip":
        config: Any = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    else:
        config = transformers.SiglipConfig(text_config={**TEXT, "projection_size": 32}, vision_config=VISION)
    return tiny_model("AutoModel", config)


def text_items(lengths: Sequence[int], reduce: Any, *, vocab: int = 45, seed: int = 0) -> list[Item]:
    random = np.random.default_rng(seed)
    return [Item("text", {"input_ids": np.append(random.integers(5, vocab, n), EOS)}, reduce) for n in lengths]


def image_items(count: int, reduce: Any, *, size: int = 32, seed: int = 0) -> list[Item]:
    random = np.random.default_rng(seed)
    pixels = random.normal(size=(count, 3, size, size)).astype(np.float32)
    return [Item("image", {"pixel_values": each}, reduce) for each in pixels]


def assert_same(outputs: Sequence[Any], expected: Sequence[Output]) -> None:
    for ours, theirs in zip(outputs, expected, strict=True):
        assert isinstance(ours, dict), ours
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=2e-5)


@torch.inference_mode()
def run(model: Any, items: Sequence[Item], dense: Any = None) -> list[Output]:
    subject = loaded(model)
    subject.dense = dense
    return run_batch(subject, items)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_of_both_towers(name: str) -> None:
    model = dual(name)
    # SigLIP reads its last position and no mask, so its task pads to a fixed length; CLIP's texts are as they come.
    lengths = (3, 9, 5, 15) if name == "clip" else (15, 15, 15)
    texts, images = text_items(lengths, Features()), image_items(3, Features())
    outputs = [*run(model, texts), *run(model, images)]
    assert_same(outputs, run_items(model, [*texts, *images]))
    embeddings = np.stack([output["embedding"] for output in outputs])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    with torch.inference_mode():  # what the model itself says of the same pairs
        ids = torch.from_numpy(texts[0].inputs["input_ids"])[None]
        pixels = torch.from_numpy(np.stack([image.inputs["pixel_values"] for image in images]))
        wanted = model(input_ids=ids, pixel_values=pixels).logits_per_image[:, 0]
    scores = embeddings[len(texts) :] @ embeddings[0] * float(model.logit_scale.detach().exp())
    scores = scores + (float(model.logit_bias.detach()) if name == "siglip" else 0)
    np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-4)


def test_an_engine_takes_texts_and_images_together() -> None:
    model = dual("clip")
    texts, images = text_items((3, 9, 5), Features()), image_items(2, Features())
    items = [texts[0], images[0], texts[1], images[1], texts[2]]
    engine = BatchEngine(loaded(model), max_batch_tokens=32)
    try:
        assert_same(engine.run(items), run_items(model, items))
    finally:
        engine.close()


def test_image_classification() -> None:
    config = transformers.ViTConfig(**VISION, num_labels=5)
    model = tiny_model("AutoModelForImageClassification", config)
    items = image_items(4, Logits())
    assert_same(run(model, items), run_items(model, items))
    half = run(model.to(torch.bfloat16), items)
    assert half[0]["logits"].dtype == np.float32


def test_images_of_several_sizes_do_not_share_a_batch() -> None:
    config = transformers.ViTConfig(**VISION, num_labels=5)
    model = tiny_model("AutoModelForImageClassification", config)
    good, odd = image_items(3, Logits()), image_items(1, Logits(), size=48)
    engine = BatchEngine(loaded(model))
    try:
        *answers, bad = engine.run([*good, *odd])
    finally:
        engine.close()
    assert_same(answers, run_items(model, good))
    assert not isinstance(bad, dict)
    assert bad.type == "ModelFailure"


def bert(auto_model: str = "AutoModel") -> Any:
    config = bert_config(labels=("a", "b", "c"))
    config.vocab_size = 50
    return tiny_model(auto_model, config)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "last", "mean_sqrt_len"])
@pytest.mark.parametrize("skip", [0, 2])
def test_poolings(mode: Any, skip: int) -> None:
    model = bert()
    items = text_items((4, 12, 7), Pool(mode, skip=skip))
    expected = run_items(model, items)
    if mode == "cls" and skip:  # the first token that is not left out, as in sentence-transformers
        states = run_items(model, text_items((4, 12, 7), Pool("none")))
        expected = [{"embedding": state["embedding"][skip]} for state in states]
    assert_same(run(model, items), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_dense_layers_come_after_pooling_and_before_normalising(normalize: bool) -> None:
    model = bert()
    torch.manual_seed(3)
    dense = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Tanh()).eval()
    items = text_items((4, 12), Pool("mean", normalize=normalize))
    pooled = run_items(model, text_items((4, 12), Pool("mean")))
    with torch.inference_mode():
        wanted = dense(torch.from_numpy(np.stack([each["embedding"] for each in pooled])))
        wanted = torch.nn.functional.normalize(wanted, dim=-1) if normalize else wanted
    outputs = run(model, items, dense)
    assert_same(outputs, [{"embedding": row} for row in wanted.numpy()])


def test_outputs_are_as_long_as_their_items() -> None:
    items = text_items((4, 12, 7), TokenLogits())
    model = bert("AutoModelForTokenClassification")
    outputs = run(model, items)
    assert [output["logits"].shape for output in outputs] == [(5, 3), (13, 3), (8, 3)]
    tokens = run(bert(), text_items((4, 12), Pool("none", normalize=True)))
    assert [output["embedding"].shape for output in tokens] == [(5, 64), (13, 64)]
    np.testing.assert_allclose(np.linalg.norm(tokens[0]["embedding"], axis=1), 1, atol=1e-5)


def test_mask_scores_of_several_positions_and_sizes() -> None:
    model = bert("AutoModelForMaskedLM")
    (first,) = text_items((4,), MaskScores((1, 2), 3))
    (second,) = text_items((9,), MaskScores((0,), 5, (7, 11)), seed=1)
    outputs = run(model, [first, second])
    assert_same(outputs, run_items(model, [first, second]))
    assert outputs[1]["ids"].shape == (1, 2)
    (wide,) = run(model, text_items((4,), MaskScores((1,), 1000)))
    assert wide["ids"].shape == (1, 50)  # no more than the vocabulary has


@pytest.mark.parametrize("chunk", [3, 1024])
def test_next_tokens_of_several_lengths(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(forward, "CHUNK_POSITIONS", chunk)
    torch.manual_seed(0)
    size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "initializer_range": 0.5}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).eval()
    items = [*text_items((4, 12, 7), NextTokens()), *text_items((9,), NextTokens(6)), *text_items((0,), NextTokens())]
    outputs = run(model, items)
    assert [output["logprobs"].shape for output in outputs] == [(4,), (12,), (7,), (4,), (0,)]
    assert all(output["logprobs"].dtype == np.float32 for output in outputs)
    assert_same(outputs, run_items(model, items))


def test_a_batch_without_padding_goes_without_a_mask() -> None:
    model = bert()
    seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    run(model, text_items((5, 5), Pool()))
    run(model, text_items((5, 6), Pool()))
    assert ["attention_mask" in kwargs for kwargs in seen] == [False, True]
    assert seen[1]["input_ids"][0, -1] == 0


def test_a_cancelled_call_costs_nobody_else_an_answer() -> None:
    """Its caller gave up while the engine was busy; the thread goes on."""
    model = bert()
    entered, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        entered.set()
        go_on.wait(10)

    model.register_forward_pre_hook(wait)
    engine = BatchEngine(loaded(model))
    try:
        first = engine.submit(text_items((4,), Pool()))
        assert entered.wait(10)
        second, third = engine.submit(text_items((5,), Pool())), engine.submit(text_items((6,), Pool()))
        assert second.cancel()
        go_on.set()
        assert len(first.result(10)) == len(third.result(10)) == 1
        assert not first.cancel()
    finally:
        go_on.set()
        engine.close()


def test_costs() -> None:
    assert cost_tokens(text_items((4,), Logits())[0]) == 5
    assert cost_tokens(image_items(1, Logits())[0]) == 32 * 32 // PATCH_PIXELS
