from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import T5Config

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.summarization import Summarization
from tests.conftest import SHARED_DATA
from tests.tasks.generation_support import answer, contexts, tokenizer_of
from tests.tasks.support import tiny_model, truncated

T5_SMALL = {
    "early_stopping": True, "length_penalty": 2.0, "max_length": 20, "min_length": 5, "no_repeat_ngram_size": 3,
    "num_beams": 4, "prefix": "summarize: ",
}  # fmt: skip
"""What t5-small's configuration says of the task, with shorter lengths."""


def t5_model() -> Any:
    config = T5Config(
        vocab_size=32128, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, initializer_factor=3.0,
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return tiny_model("AutoModelForSeq2SeqLM", config)


def make(*, generation: dict[str, Any] | None = None, model_type: str = "t5", **options: Any) -> Summarization:
    info = ModelInfo(
        name="tiny", model_type=model_type, is_encoder_decoder=model_type == "t5", generation=generation or {}
    )
    return Summarization(Summarization.Options(**options), Processor(tokenizer=tokenizer_of("t5-small")), info)


@pytest.mark.slow
def test_text_is_that_of_generate_with_the_models_own_settings() -> None:
    model, tokenizer = t5_model(), tokenizer_of("t5-small")
    texts = [*contexts("de", 2), contexts("en")[0], "Kurz.", "naïve 🙂 café"]
    wanted = []
    for text in texts:
        ids = torch.tensor([tokenizer("summarize: " + text, truncation=True, max_length=64).input_ids])
        settings = {key: value for key, value in T5_SMALL.items() if key != "prefix"}
        tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0]
        wanted.append(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    task = make(generation={"task_specific_params": {"summarization": T5_SMALL}, "eos_token_id": 1}, max_length=64)
    assert answer(task, model, [{"text": text} for text in texts]) == wanted


def test_the_prefix() -> None:
    def first_ids(task: Summarization) -> str:
        (encoded,) = task.encode([{"text": "Hello"}])
        assert not isinstance(encoded, RowError)
        assert encoded.items[0].kind == "seq2seq"
        return str(tokenizer_of("t5-small").decode(encoded.items[0].inputs["input_ids"]))

    own = {"task_specific_params": {"summarization": {"prefix": "summarize: "}}}
    assert first_ids(make(generation=own)) == "summarize: Hello</s>"
    assert first_ids(make(generation=own, prefix="")) == "Hello</s>"
    assert first_ids(make(prefix="tldr: ")) == "tldr: Hello</s>"
    assert first_ids(make()) == "Hello</s>"


def test_long_texts_are_cut_and_keep_their_end_token() -> None:
    (encoded,) = make(max_length=16).encode([{"text": " ".join(contexts("en"))}])
    assert not isinstance(encoded, RowError)
    assert encoded.items[0].num_tokens == 16
    assert encoded.items[0].inputs["input_ids"][-1] == 1


def test_bad_rows_fail_alone() -> None:
    rows: list[dict[str, Any]] = [
        {"text": None},
        {"text": "fine"},
        {"text": ""},
        {},
        {"text": "a\ud800"},
        {"text": b""},
    ]
    found = make().encode(rows)
    assert [each.type if isinstance(each, RowError) else "ok" for each in found] == [
        "NullText", "ok", "EmptyText", "MissingColumn", "InvalidText", "WrongType",
    ]  # fmt: skip


def test_several_sampled_texts() -> None:
    task = make(num_return_sequences=2, temperature=1.0, max_new_tokens=4)
    assert task.result_type() == pa.list_(pa.string())
    assert make().result_type() == pa.string()
    (texts,) = answer(task, t5_model(), [{"text": "Hello"}])
    assert len(texts) == 2


def test_models_that_do_not_fit() -> None:
    with pytest.raises(SpecError, match=r"needs an encoder-decoder model .* use text-generation"):
        make(model_type="gpt2")


def test_metrics_are_rouge() -> None:
    path = SHARED_DATA / "scitldr_a" / "dev.jsonl"
    if not path.is_file():
        pytest.skip("no shared data: scitldr_a/dev.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:5]]
    targets = [row["target"] for row in rows]
    perfect = make().metrics([target[0] for target in targets], targets)
    assert perfect == pytest.approx({"rouge1": 1, "rouge2": 1, "rougeL": 1, "rougeLsum": 1})
    leads = make().metrics([row["source"][0] for row in rows], targets)
    assert 0 < leads["rouge2"] < leads["rouge1"] < 0.6


def test_rows_that_lose_text_are_known() -> None:
    text = contexts("en")[0]
    num_tokens = len(tokenizer_of("t5-small")("summarize: " + text).input_ids)
    for limit, cut in ((num_tokens, False), (num_tokens - 1, True)):
        assert truncated(make(prefix="summarize: ", max_length=limit), {"text": text}) == [cut]
    for max_chars, cut in ((len(text), False), (len(text) - 1, True)):
        task = make(prefix="summarize: ", max_chars=max_chars, over_max_chars="truncate")
        assert truncated(task, {"text": text}) == [cut]
