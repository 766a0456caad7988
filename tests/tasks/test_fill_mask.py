from __future__ import annotations

import pyarrow as pa
import pytest
from transformers import pipeline

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.fill_mask import FillMask
from tests.tasks.support import (
    answer,
    bert_config,
    bert_tokenizer,
    make_task,
    roberta_config,
    roberta_tokenizer,
    stored_tokenizer,
    tiny_model,
    truncated,
)

TEXTS = (
    "Paris is the [MASK] of France.",
    "[MASK]",
    "今天[MASK]气很好 🎉",
    "[MASK] is [MASK], мир [MASK].",
    "It is very " * 15 + "[MASK] " + "and long " * 60,
)


def bert():
    return tiny_model(FillMask.auto_model, bert_config()), bert_tokenizer()


def roberta():
    tokenizer = roberta_tokenizer()
    return tiny_model(FillMask.auto_model, roberta_config(len(tokenizer))), tokenizer


def assert_same(result, expected):
    """The pipeline gives a flat list for one mask."""
    expected = [expected] if isinstance(expected[0], dict) else expected
    assert len(result) == len(expected)
    for found, wanted in zip(result, expected, strict=True):
        assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-5)
        for key in ("token", "token_str", "sequence"):
            assert [each[key] for each in found] == [each[key] for each in wanted]


@pytest.mark.parametrize("make", [bert, roberta])
def test_answers_are_those_of_the_pipeline(make):
    model, tokenizer = make()
    texts = [text.replace("[MASK]", tokenizer.mask_token) for text in TEXTS]
    theirs = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    task = make_task(FillMask, model, tokenizer, info={"max_length": 64}, top_k=7)
    results = answer(task, model, [{"text": text} for text in texts])
    for text, result in zip(texts, results, strict=True):
        assert_same(result, theirs(text, top_k=7, tokenizer_kwargs={"truncation": True}))


@pytest.mark.parametrize(("make", "targets"), [(bert, ["Good", "bad", "[UNK]", "[PAD]"]), (roberta, [" good", "bad"])])
def test_targets(make, targets):
    model, tokenizer = make()
    theirs = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    task = make_task(FillMask, model, tokenizer, info={"max_length": 64}, targets=targets)
    for text in (f"a {tokenizer.mask_token} day", f"{tokenizer.mask_token} or {tokenizer.mask_token}"):
        (result,) = answer(task, model, [{"text": text}])
        assert_same(result, theirs(text, targets=targets))
        assert all(len(mask) == len(targets) for mask in result)


def test_a_target_given_twice_counts_once():
    model, _ = bert()
    (result,) = answer(make_task(FillMask, model, targets=["good", "Good", "bad"]), model, [{"text": "[MASK]"}])
    assert sorted(each["token_str"] for each in result[0]) == ["bad", "good"]


@pytest.mark.parametrize(("target", "pieces"), [("unbelievability", "##"), ("two words", "'two' 'words'"), ("", "0")])
def test_a_target_that_is_not_one_token_is_refused(target, pieces):
    with pytest.raises(SpecError) as caught:
        make_task(FillMask, bert()[0], targets=["good", target])
    assert repr(target) in str(caught.value)
    assert pieces in str(caught.value)


def test_an_unknown_target_is_refused():
    with pytest.raises(SpecError, match=r"'\[UNK\]'"):
        make_task(FillMask, bert()[0], targets=["\N{BRAILLE PATTERN DOTS-1}"])


def test_a_tokenizer_without_a_mask_token_is_refused():
    tokenizer = stored_tokenizer("t5-small")
    with pytest.raises(SpecError, match="mask token"):
        make_task(FillMask, bert()[0], tokenizer)


def test_bad_rows_and_order():
    model, _ = bert()
    rows = [
        {"text": "a [MASK]"},
        {"text": "no mask"},
        {"text": ""},
        {"text": None},
        {"text": "very long " * 60 + "[MASK]"},
        {"text": "[MASK] " + "very long " * 60 + "[MASK]"},
        {"text": "a [MASK]"},
    ]
    results = answer(make_task(FillMask, model), model, rows)
    types = [each.type if isinstance(each, RowError) else None for each in results]
    assert types == [None, "NoMask", "EmptyText", "NullText", "MaskCutOff", "MaskCutOff", None]
    assert "[MASK]" in results[1].message
    assert "only 1 of 2 masks" in results[5].message
    assert results[0] == results[-1]


def test_options_of_a_request_and_top_k_beyond_the_vocabulary():
    model, tokenizer = bert()
    task = make_task(FillMask, model)
    (result,) = answer(task, model, [{"text": "[MASK]"}], FillMask.Options(top_k=2, targets=("good", "bad", "ugly")))
    assert len(result[0]) == 2
    (encoded,) = task.encode([{"text": "[MASK]"}], FillMask.Options(top_k=10**9))
    assert encoded.items[0].reduce.top_k == len(tokenizer)


def test_results_fit_the_arrow_type():
    model, _ = bert()
    task = make_task(FillMask, model)
    results = answer(task, model, [{"text": text} for text in TEXTS])
    assert pa.array(results, task.result_type()).to_pylist() == results
    assert task.summarize(results[0]).label == results[0][0][0]["token_str"]


def test_metrics():
    model, tokenizer = bert()
    task = make_task(FillMask, model)

    def best(word):
        return [{"token": tokenizer.convert_tokens_to_ids(word), "token_str": word, "score": 1.0, "sequence": word}]

    results = [[best("paris")], [best("good"), best("bad")]]
    assert task.metrics(results, ["Paris", ["good", "worse"]]) == pytest.approx({"accuracy": 2 / 3})
    with pytest.raises(DataError, match="2 words for 1 masks"):
        task.metrics(results[:1], [["a", "b"]])
    with pytest.raises(DataError, match="neither a word"):
        task.metrics(results[:1], [7])


def test_rows_that_lose_text_are_known():
    rows = [{"text": "[MASK] " + "word " * num} for num in (61, 62)]
    assert truncated(make_task(FillMask, bert()[0]), *rows) == [False, True]
