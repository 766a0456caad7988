from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hfray.errors import RowError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.embedding import PromptOptions, TextEmbedder
from hfray.types import Pool
from tests.tasks.support import bert_tokenizer, stored_tokenizer

OPTIONS = PromptOptions(name="any")


def embedder(tokenizer=None, **info):
    info = {"name": "tiny", "model_type": "bert", "max_length": 16} | info
    return TextEmbedder(Processor(tokenizer=tokenizer or bert_tokenizer()), ModelInfo(**info))


def test_a_prompt_left_out_of_pooling_counts_its_tokens_with_the_leading_special_one():
    options = OPTIONS.model_copy(update={"prefix": "query: "})
    assert embedder().prompt(options).num_tokens == 0
    prompt = embedder(include_prompt=False).prompt(options)
    assert (prompt.text, prompt.num_tokens) == ("query: ", 3)  # [CLS] query :
    assert embedder(include_prompt=False).prompt(OPTIONS).num_tokens == 0


def test_items_carry_the_prompt_and_its_length():
    texts = embedder(include_prompt=False, default_prompt="query: ")
    prompt = texts.prompt(OPTIONS)
    encoded = texts.encode(["a card", ""], OPTIONS, prompt, mode="mean", normalize=True)
    first, empty = (each.items[0] for each in encoded)
    assert bert_tokenizer().decode(first.inputs["input_ids"]) == "[CLS] query : a card [SEP]"
    assert first.reduce == Pool("mean", True, 3)
    assert bert_tokenizer().decode(empty.inputs["input_ids"]) == "[CLS] query : [SEP]"
    (tokens,) = texts.encode(["a"], OPTIONS, prompt, mode="none", normalize=False)
    assert tokens.items[0].reduce.skip == 0  # token vectors are all kept


@pytest.mark.parametrize("default_prompt", [None, "query: "])
def test_nothing_to_pool_is_an_error_of_the_row(default_prompt):
    # This tokenizer adds no special tokens, so an empty text leaves nothing.
    texts = embedder(stored_tokenizer("phi-3-mini"), include_prompt=False, default_prompt=default_prompt)
    prompt = texts.prompt(OPTIONS)
    empty, good = texts.encode(["", "a card"], OPTIONS, prompt, mode="mean", normalize=False)
    assert isinstance(empty, RowError)
    assert empty.type == "EmptyText"
    assert good.items[0].num_tokens > prompt.num_tokens


def test_pooling_modes_are_settled():
    assert embedder().pooling("auto") == "mean"
    assert embedder(pooling="mean_sqrt_len").pooling("auto") == "mean_sqrt_len"
    assert embedder(pooling="cls").pooling("max") == "max"


def test_long_texts_are_cut_to_the_shorter_limit():
    texts, long = embedder(), ["word " * 50]
    lengths = [
        texts.encode(long, OPTIONS.model_copy(update={"max_length": limit}), texts.prompt(OPTIONS), mode="mean",
                     normalize=False)[0].items[0].num_tokens
        for limit in (None, 8, 64)
    ]  # fmt: skip
    assert lengths == [16, 8, 16]


@pytest.mark.slow
def test_threads_may_share_it():
    texts = embedder()
    prompt = texts.prompt(OPTIONS)

    def encode(index):
        options = OPTIONS.model_copy(update={"max_length": 4 + index % 8})
        encoded = texts.encode(["word " * 50] * 20, options, prompt, mode="mean", normalize=False)
        return {each.items[0].num_tokens for each in encoded} == {4 + index % 8}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(encode, range(32)))


def test_texts_that_are_cut_are_known():
    texts = embedder()
    found = texts.encode(["word " * 14, "word " * 15], OPTIONS, texts.prompt(OPTIONS), mode="mean", normalize=False)
    assert [each.truncated for each in found] == [False, True]
