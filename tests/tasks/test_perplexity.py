"""perplexity against Transformers' own loss of the same texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from hfray.errors import RowError, SpecError
from hfray.tasks.features import MODES
from hfray.tasks.perplexity import Perplexity
from tests.tasks.generation_support import tokenizer_of
from tests.tasks.support import TEXTS, answer, make_task
from tests.tasks.test_summarization import t5_model
from tests.tasks.test_text_generation import model_of

LONG = "It was the best of times, it was the worst of times; and nobody knew which. " * 20


def loss_of(model: Any, ids: list[int]) -> float:
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        return float(model(input_ids=tokens, labels=tokens).loss)


def asked(name: str = "gpt2", **options: Any) -> tuple[Any, Any, Any]:
    tokenizer = tokenizer_of(name)
    model = model_of(name)
    return make_task(Perplexity, model, tokenizer, **options), model, tokenizer


@pytest.mark.parametrize("name", ["gpt2", "phi-3-mini"])
def test_losses_are_those_of_the_model(name: str) -> None:
    task, model, tokenizer = asked(name)
    texts = [text for text in TEXTS if len(tokenizer(text)["input_ids"]) <= model.config.max_position_embeddings]
    assert len(texts) >= 4
    for text, result in zip(texts, answer(task, model, [{"text": text} for text in texts]), strict=True):
        ids = tokenizer(text)["input_ids"]
        if len(ids) == 1:
            assert isinstance(result, RowError)
            continue
        assert result["tokens"] == len(ids) - 1
        assert result["loss"] == pytest.approx(loss_of(model, ids), rel=1e-5)
        assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))


def test_the_end_of_a_text_is_foreseen_where_that_is_wanted() -> None:
    task, model, tokenizer = asked(append_eos=True)
    (result,) = answer(task, model, [{"text": "ok"}])
    ids = [*tokenizer("ok")["input_ids"], tokenizer.eos_token_id]
    assert result == {
        "loss": pytest.approx(loss_of(model, ids), rel=1e-5), "perplexity": pytest.approx(math.exp(result["loss"])),
        "tokens": len(ids) - 1,
    }  # fmt: skip


def test_windows_begin_anew_without_a_stride() -> None:
    task, model, tokenizer = asked(max_length=32)
    (result,) = answer(task, model, [{"text": LONG}])
    ids = tokenizer(LONG)["input_ids"]
    pieces = [ids[start : start + 32] for start in range(0, len(ids), 32)]
    lengths = [len(piece) - 1 for piece in pieces]
    nats = sum(loss_of(model, piece) * length for piece, length in zip(pieces, lengths, strict=True) if length)
    assert result["tokens"] == sum(lengths)
    assert result["loss"] == pytest.approx(nats / sum(lengths), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 8, 30])
def test_with_a_stride_every_token_but_the_first_is_counted_once(stride: int) -> None:
    """Windows as in Transformers' guide, their context with labels that are left out."""
    task, model, tokenizer = asked(max_length=32, stride=stride)
    (result,) = answer(task, model, [{"text": LONG}])
    ids = tokenizer(LONG)["input_ids"]
    nats, end = 0.0, 1
    for start in range(0, len(ids), 32 - stride):
        window = torch.tensor([ids[start : start + 32]])
        labels = window.clone()
        labels[:, : end - start] = -100
        new = int((labels != -100).sum())
        if new:
            with torch.inference_mode():
                nats += float(model(input_ids=window, labels=labels).loss) * new
        end = start + window.shape[1]
    assert result["tokens"] == len(ids) - 1
    assert result["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_metrics_weigh_texts_by_their_tokens() -> None:
    task, model, _ = asked(append_eos=True)
    results = answer(task, model, [{"text": text} for text in ("a b c d e f", "ok", LONG[:200])])
    tokens = sum(result["tokens"] for result in results)
    loss = sum(result["loss"] * result["tokens"] for result in results) / tokens
    found = task.metrics(results, [None] * 3)
    assert found == {"loss": pytest.approx(loss), "perplexity": pytest.approx(math.exp(loss))}
    assert all(math.isnan(each) for each in task.metrics([], []).values())


def test_the_loss_is_that_of_packed_training() -> None:
    """Documents packed as `kind: train` reads them, one too long for a sequence among them."""
    rows = [{"text": text} for text in ("a b c d e f", "ok", LONG[:300], "Nobody knew which.")]
    task, model, tokenizer = asked("phi-3-mini", append_eos=True, max_length=32)
    mode = MODES["packed"]
    packed = mode(mode.Options(name="packed"), tokenizer, 32, {"text": pa.string()})  # type: ignore[call-arg]
    columns = packed.pack(packed.encode(rows).columns)
    nats, count = 0.0, 0
    for number in range(len(columns["input_ids"])):
        names = ("input_ids", "position_ids", "labels")
        inputs = {name: torch.from_numpy(columns[name][number].astype(np.int64))[None] for name in names}
        new = int((inputs["labels"] != -100).sum())
        with torch.inference_mode():
            nats += float(model(**inputs, use_cache=False).loss) * new
        count += new
    results = answer(task, model, rows)
    assert sum(result["tokens"] for result in results) == count
    assert task.metrics(results, [None] * len(rows))["loss"] == pytest.approx(nats / count, rel=1e-5)


def test_rows_that_cannot_be_told() -> None:
    task, model, _ = asked(max_chars=100)
    rows: list[dict[str, Any]] = [{"text": "a"}, {"text": None}, {"text": " "}, {}, {"text": LONG}]
    found = [each.type for each in answer(task, model, rows)]
    assert found == ["TextTooShort", "NullText", "EmptyText", "MissingColumn", "TextTooLong"]
    cut, _, _ = asked(max_chars=100, over_max_chars="truncate")
    assert [each.truncated for each in cut.encode([{"text": LONG}, {"text": "a b"}])] == [True, False]


def test_a_perplexity_beyond_all_numbers_is_a_number() -> None:
    task, _, _ = asked()
    result = task.decode([{"logprobs": np.full(3, -1e4, np.float32)}], None)
    assert (result["loss"], math.isfinite(result["perplexity"]), result["tokens"]) == (1e4, True, 3)


def test_refusals() -> None:
    with pytest.raises(
        SpecError, match=r"task\.stride: 31 leaves no step between windows of 32 tokens; .* less than 31"
    ):
        asked(max_length=32, stride=31)
    tokenizer = tokenizer_of("t5-small")
    with pytest.raises(SpecError, match="needs a decoder-only model, and tiny \\(t5\\) is an encoder-decoder"):
        make_task(Perplexity, t5_model(), tokenizer)


def test_a_tokenizer_without_an_end() -> None:
    backend = tokenizer_of("gpt2").backend_tokenizer
    bare = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(SpecError, match=r"task\.append_eos: the tokenizer of model tiny has no end-of-sequence token"):
        make_task(Perplexity, model_of("gpt2"), bare, append_eos=True)


def test_results_fit_their_type() -> None:
    task, model, _ = asked()
    results = answer(task, model, [{"text": "a b c"}, {"text": "d e"}])
    assert pa.array(results, task.result_type()).to_pylist() == results
    assert task.summarize(results[0]).score == results[0]["loss"]
